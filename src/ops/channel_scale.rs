//! The last step of an attention layer, in one pass for inference: scale channels, add a residual,
//! apply an activation.

use crate::error::Result;
use crate::kernels;
use crate::kernels::elementwise::epilogue::{Activation, Epilogue};
use crate::profiling::hooks::operation;
use crate::tensor::compute::repeated_rows;
use crate::tensor::meta::is_meta;
use crate::tensor::{Tensor, with_float};

impl Tensor {
    /// Computes `activation(self · scale + residual)`.
    ///
    /// The map is overwritten in one pass when its storage is not shared, no history is kept, and
    /// the shapes allow it: a scale `[N, C, 1, 1]` for a channels-last map, and a residual with the
    /// map's shape, dtype and memory format. Otherwise the operations run one after the other, with
    /// the same result.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the scale or the residual does not broadcast,
    /// [`Error::DType`](crate::Error::DType) for a dtype that the activation does not take.
    pub(crate) fn channel_scaled(mut self, scale: &Tensor, residual: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
        let alike = |t: &Tensor| t.shape() == self.shape() && t.dtype() == self.dtype() && t.memory_format() == self.memory_format();
        let recorded = [Some(&self), Some(scale), residual].into_iter().flatten().any(Tensor::is_recorded);
        let fits = self.dtype().is_float() && self.numel() > 0 && residual.is_none_or(alike) && !recorded && !is_meta();
        if let Some(rows) = fits.then(|| repeated_rows(&self, &self, scale)).flatten()
            && self.is_unique()
        {
            let _op = operation("channel_scale");
            self = self.with_node(None);
            with_float!(self.dtype(), "channel_scale", T => {
                let epilogue = Epilogue { residual: residual.map(|residual| residual.data()), activation, ..Default::default() };
                kernels::elementwise::channel_scale::apply(rows, self.make_mut::<T>()?, scale.data(), epilogue);
            });
            return Ok(self);
        }
        let y = self.mul(scale)?;
        drop(self);
        activation.apply_to_sum(y, residual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFormat::{ChannelsLast, RowMajor};
    use crate::autograd::gradcheck;
    use crate::{DType, no_grad};

    fn apart(x: &Tensor, scale: &Tensor, residual: Option<&Tensor>, activation: Activation) -> Tensor {
        let y = x.mul(scale).unwrap();
        activation.apply(residual.map_or(y.clone(), |residual| y.add(residual).unwrap())).unwrap()
    }

    fn bits(x: &Tensor) -> Vec<u64> {
        x.cast(DType::F64).unwrap().to_vec::<f64>().unwrap().into_iter().map(f64::to_bits).collect()
    }

    fn place_of(x: &Tensor) -> usize {
        if x.dtype() == DType::F32 { x.data::<f32>().as_ptr().addr() } else { x.data::<f64>().as_ptr().addr() }
    }

    #[test]
    fn result_has_the_bits_of_separate_operations_and_overwrites_a_map_that_is_not_shared() {
        let shapes = [
            [2, 3, 4, 5],
            [1, 16, 7, 7],
            [3, 70, 9, 11],
            [2, 300, 5, 5],
            [1, 20_000, 1, 2],
            [2, 8, 1, 1],
            [1, 1, 3, 3],
            [0, 4, 2, 2],
            [2, 64, 40, 40],
        ];
        for (shape, dtype) in shapes.into_iter().flat_map(|shape| [(shape, DType::F32), (shape, DType::F64)]) {
            let random = |shape: [usize; 4]| Tensor::randn(shape).cast(dtype).unwrap().to_format(ChannelsLast).unwrap();
            let (x, scale, shortcut) = (random(shape), random([shape[0], shape[1], 1, 1]), random(shape));
            for residual in [None, Some(&shortcut), Some(&shortcut.to_format(RowMajor).unwrap())] {
                for activation in [Activation::Linear, Activation::Relu, Activation::Relu6, Activation::Hardswish] {
                    let expected = bits(&apart(&x, &scale, residual, activation));
                    let found = x.clone().channel_scaled(&scale, residual, activation).unwrap();
                    assert_eq!(bits(&found), expected, "{shape:?}, {dtype}, {activation:?}, held by others");
                    let own = x.mul_scalar(1.0);
                    let place = place_of(&own);
                    let found = own.channel_scaled(&scale, residual, activation).unwrap();
                    assert_eq!(bits(&found), expected, "{shape:?}, {dtype}, {activation:?}");
                    if shape[1] > 1 && shape[2] > 1 && residual.is_none_or(|residual| residual.memory_format() == ChannelsLast) {
                        assert_eq!(place_of(&found), place);
                    }
                }
            }
        }
    }

    #[test]
    fn gates_and_residuals_that_broadcast_give_the_result_of_separate_operations() {
        let x = Tensor::randn([2, 3, 4, 5]).to_format(ChannelsLast).unwrap();
        for (scale, residual) in
            [([2, 1, 4, 5], [2, 3, 4, 5]), ([1, 3, 1, 1], [2, 1, 1, 1]), ([1, 1, 1, 1], [2, 3, 4, 5]), ([2, 3, 1, 1], [1, 3, 1, 1])]
        {
            let (scale, residual) = (Tensor::randn(scale), Tensor::randn(residual));
            let found = x.mul_scalar(1.0).channel_scaled(&scale, Some(&residual), Activation::Relu).unwrap();
            assert_eq!(bits(&found), bits(&apart(&x, &scale, Some(&residual), Activation::Relu)));
        }
        let error = |y: Result<Tensor>| y.unwrap_err().to_string();
        let (scale, residual) = (Tensor::ones([2, 3, 1, 1]), Tensor::ones([2, 3, 4, 4]));
        assert_eq!(error(x.clone().channel_scaled(&scale, Some(&residual), Activation::Relu)), error(x.add(&residual)));
        assert_eq!(error(x.clone().channel_scaled(&residual, None, Activation::Relu)), error(x.mul(&residual)));
    }

    #[test]
    fn gradients_are_computed_where_required_and_recorded_maps_are_not_overwritten() {
        let [x, shortcut] = [(); 2].map(|()| Tensor::randn([2, 3, 4, 5]).cast(DType::F64).unwrap().to_format(ChannelsLast).unwrap());
        let scale = Tensor::randn([2, 3, 1, 1]).cast(DType::F64).unwrap();
        gradcheck(&[x.clone(), scale.clone(), shortcut.clone()], Default::default(), |t| {
            t[0].clone().channel_scaled(&t[1], Some(&t[2]), Activation::Silu)
        })
        .unwrap();
        let leaf = x.mul_scalar(1.0).with_grad();
        let before = bits(&leaf);
        assert!(leaf.clone().channel_scaled(&scale, Some(&shortcut), Activation::Relu).unwrap().requires_grad());
        let y = no_grad(|| leaf.clone().channel_scaled(&scale, None, Activation::Relu)).unwrap();
        assert!(!y.requires_grad() && bits(&leaf) == before);
    }
}
