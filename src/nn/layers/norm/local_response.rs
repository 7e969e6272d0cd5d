//! Local response normalisation.

use crate::nn::module::layer::LayerPath;
use crate::nn::module::macros::stateless;

/// [`Tensor::local_response_norm`](crate::Tensor::local_response_norm) as a layer: AlexNet's
/// normalisation across channels (Krizhevsky et al., 2012).
#[derive(Debug)]
pub struct LocalResponseNorm {
    size: usize,
    alpha: f64,
    beta: f64,
    k: f64,
    path: LayerPath,
}

impl LocalResponseNorm {
    /// Creates the layer for windows of this many neighbouring channels, with alpha 1e-4, beta 0.75
    /// and k 1.
    pub fn new(size: usize) -> LocalResponseNorm {
        LocalResponseNorm { size, alpha: 1e-4, beta: 0.75, k: 1.0, path: LayerPath::new() }
    }

    /// Sets the factor of the mean square (default: 1e-4).
    pub fn alpha(mut self, alpha: f64) -> LocalResponseNorm {
        self.alpha = alpha;
        self
    }

    /// Sets the exponent (default: 0.75).
    pub fn beta(mut self, beta: f64) -> LocalResponseNorm {
        self.beta = beta;
        self
    }

    /// Sets the number that is added to the mean square (default: 1).
    pub fn k(mut self, k: f64) -> LocalResponseNorm {
        self.k = k;
        self
    }
}

stateless! {
    LocalResponseNorm { size, alpha, beta, k }, |layer| format!("LocalResponseNorm {}", layer.size),
        |x| x.local_response_norm(layer.size, layer.alpha, layer.beta, layer.k);
}
