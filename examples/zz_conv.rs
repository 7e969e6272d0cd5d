use convnet::{Tensor, ops::Conv2dOptions};
use std::time::Instant;
fn main() {
    convnet::set_num_threads(std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1)).unwrap();
    for (n, cin, cout, size, k, s, p) in [
        (64, 1, 6, 28, 5, 1, 2),
        (64, 6, 16, 14, 5, 1, 0),
        (16, 3, 64, 224, 7, 2, 3),
        (16, 64, 64, 56, 3, 1, 1),
        (16, 128, 128, 28, 3, 1, 1),
        (16, 256, 256, 14, 3, 1, 1),
        (16, 512, 512, 7, 3, 1, 1),
        (16, 64, 256, 56, 1, 1, 0),
        (16, 1024, 256, 14, 1, 1, 0),
    ] {
        let x = Tensor::randn([n, cin, size, size]).to_cl();
        let w = Tensor::randn([cout, cin, k, k]).with_grad();
        let xg = if cin > 3 { x.with_grad() } else { x.clone() };
        let o = Conv2dOptions { stride: [s, s], padding: [p, p], ..Default::default() };
        let (mut f, mut b) = (f64::MAX, f64::MAX);
        let mut flops = 0.0;
        for _ in 0..8 {
            let t = Instant::now();
            let y = xg.conv2d(&w, None, o).unwrap();
            f = f.min(t.elapsed().as_secs_f64());
            flops = 2.0 * y.numel() as f64 * (cin * k * k) as f64;
            let t = Instant::now();
            let g = y.backward_with(convnet::autograd::BackwardOptions { gradient: Some(y.detach()), retain_graph: false }).unwrap();
            b = b.min(t.elapsed().as_secs_f64());
            drop(g);
        }
        let passes = if cin > 3 { 2.0 } else { 1.0 };
        println!(
            "{n}x{cin}->{cout} @{size} k{k}s{s}: fwd {:.3} ms {:.0} GF/s   bwd {:.3} ms {:.0} GF/s",
            f * 1e3,
            flops / f / 1e9,
            b * 1e3,
            passes * flops / b / 1e9
        );
    }
}
trait Cl {
    fn to_cl(&self) -> Tensor;
}
impl Cl for Tensor {
    fn to_cl(&self) -> Tensor {
        // a 1×1 identity convolution gives channels-last
        let c = self.shape()[1];
        let w = Tensor::eye(c).reshape([c, c, 1, 1]).unwrap();
        self.conv2d(&w, None, Default::default()).unwrap()
    }
}
