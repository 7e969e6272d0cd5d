//! Random calls of every operation and layer, forward and backward.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use convnet::nn::{self, Module, ModuleExt};
use convnet::ops::registry::OPERATIONS;
use convnet::ops::{
    Conv2dOptions, ConvTranspose1dOptions, CtcOptions, KlDivOptions, Pool1dOptions, affine_grid, batched_nms, box_iou, ctc_greedy_decode,
    nms,
};
use convnet::optim::{Adagrad, Adam, AdamW, Optimizer, RmsProp, Sgd};
use convnet::{ConvAlgorithm, DType, MemoryFormat, Result, Tensor};

use super::generator::Generator;
use super::mutate::{LONGEST, inputs, measured, with_limit};

type Call = fn(&mut Generator) -> Result<Tensor>;

/// What the calls may hold together; larger results are errors. A call at the limit takes well
/// below [`LONGEST`] without optimization too.
const LIMIT: usize = 4 << 20;

/// Calls by name; those of the registry's operations, and others.
const CALLS: &[(&str, Call)] = &[
    ("abs", |g| Ok(g.any()?.abs())),
    ("adaptive_avg_pool2d", |g| g.of(4)?.adaptive_avg_pool2d(g.options(2))),
    ("adaptive_max_pool2d", |g| g.of(4)?.adaptive_max_pool2d(g.options(2))),
    ("affine_grid", |g| {
        let count = g.size();
        let theta = g.tensor(&[count, 2, 3])?;
        affine_grid(&theta, g.options(5), g.once_in(2))
    }),
    ("add", |g| pair(g, Tensor::add)),
    ("add_scalar", |g| Ok(g.any()?.add_scalar(g.value()))),
    ("argmax", |g| g.any()?.argmax(&g.dims()[..])),
    ("argmin", |g| g.any()?.argmin_keepdim(&g.dims()[..])),
    ("atan", |g| g.any()?.atan()),
    ("avg_pool2d", |g| g.of(4)?.avg_pool2d(g.options(2), g.pool2d())),
    ("batch_norm", batch_norm),
    ("batch_norm_act", batch_norm_act),
    ("binary_cross_entropy", |g| {
        let x = g.any()?;
        x.binary_cross_entropy_with(&g.beside(&x, x.shape())?, g.reduction())
    }),
    ("binary_cross_entropy_with_logits", |g| {
        let x = g.any()?;
        x.binary_cross_entropy_with_logits_with(&g.beside(&x, x.shape())?, &g.bce(&x)?)
    }),
    ("box_iou", |g| {
        let [a, b] = [[g.size(), 4], [g.size(), 4]];
        let a = g.tensor(&a)?;
        box_iou(&a, &g.beside(&a, &b)?)
    }),
    ("cat", |g| joined(g, Tensor::cat)),
    ("chunk", |g| last(g.any()?.chunk(g.option(2), g.dim())?)),
    ("clamp", |g| g.any()?.clamp(g.value(), g.value())),
    ("contiguous", |g| g.any()?.contiguous()),
    ("conv1d", conv1d),
    ("conv2d", conv2d),
    ("conv_transpose2d", conv_transpose2d),
    ("cos", |g| g.any()?.cos()),
    ("cross_entropy", |g| {
        let x = classes(g)?;
        let target = if g.once_in(3) { g.beside(&x, x.shape())? } else { labels(g, &x)? };
        x.cross_entropy_with(&target, &g.cross_entropy(&x)?)
    }),
    ("ctc_greedy_decode", |g| {
        let x = g.of(3)?;
        let [steps, count] = [0, 1].map(|dim| x.shape().get(dim).copied().unwrap_or(1));
        let lengths = g.once_in(2).then(|| g.labels(&[count], steps)).transpose()?;
        let read = ctc_greedy_decode(&x, lengths.as_ref(), g.option(0))?;
        Tensor::from_vec(read.concat(), [read.iter().map(Vec::len).sum::<usize>()])
    }),
    ("ctc_loss", |g| {
        let x = g.of(3)?;
        let [steps, count, classes] = [0, 1, 2].map(|dim| x.shape().get(dim).copied().unwrap_or(1));
        let size = g.size();
        let (targets, lengths) = (g.labels(&[count, size], classes - 1.min(classes))?, g.labels(&[count], steps.saturating_add(1))?);
        let options = CtcOptions { blank: g.option(classes - 1.min(classes)), reduction: g.reduction(), zero_infinity: g.once_in(2) };
        x.ctc_loss_with(&targets, &lengths, &g.labels(&[count], size + 1)?, &options)
    }),
    ("div", |g| pair(g, Tensor::div)),
    ("div_scalar", |g| Ok(g.any()?.div_scalar(g.value()))),
    ("dropout", |g| g.any()?.dropout(g.fraction())),
    ("dropout2d", |g| g.of(4)?.dropout2d(g.fraction())),
    ("elu", |g| g.any()?.elu(g.value())),
    ("eq", |g| pair(g, Tensor::eq)),
    ("eq_scalar", |g| g.any()?.eq_scalar(g.value())),
    ("exp", |g| g.any()?.exp()),
    ("expand", |g| {
        let x = g.any()?;
        let mut shape = g.like(x.shape());
        shape.iter_mut().filter(|size| **size == 1).for_each(|size| *size = g.option(3));
        x.expand(shape)
    }),
    ("flatten", |g| g.any()?.flatten(g.dim(), g.dim())),
    ("flip", |g| g.any()?.flip(&g.dims()[..])),
    ("fold", |g| {
        let [n, c, side] = [g.size(), g.size(), g.pick(&[1, 2, 3, 4])];
        let shape = g.like(&[n, c * 4, side * side]);
        g.tensor(&shape)?.fold(g.options(side + 1), g.options(2), g.unfold())
    }),
    ("gather", |g| {
        let x = g.any()?;
        let (dim, shape) = (g.dim(), x.shape().to_vec());
        let bound = x.size(dim).unwrap_or(1);
        x.gather(dim, &g.labels(&shape, bound)?)
    }),
    ("ge_scalar", |g| g.any()?.ge_scalar(g.value())),
    ("gelu", |g| g.any()?.gelu()),
    ("gelu_tanh", |g| g.any()?.gelu_tanh()),
    ("group_norm", |g| {
        let x = g.any()?;
        let channels = channels(&x);
        x.group_norm(g.option(1), g.maybe(&x, &channels)?.as_ref(), g.maybe(&x, &channels)?.as_ref(), g.fraction())
    }),
    ("hardsigmoid", |g| g.any()?.hardsigmoid()),
    ("hardswish", |g| g.any()?.hardswish()),
    ("index_select", |g| {
        let x = g.any()?;
        let (dim, length) = (g.dim(), g.size());
        let bound = x.size(dim).unwrap_or(1);
        x.index_select(dim, &g.labels(&[length], bound)?)
    }),
    ("grid_sample", |g| {
        let x = g.of(4)?;
        let [rows, columns] = [g.size(), g.size()];
        let grid = g.beside(&x, &[x.shape().first().copied().unwrap_or(1), rows, columns, 2])?;
        x.grid_sample(&grid, g.grid_sample())
    }),
    ("interpolate", |g| g.of(4)?.interpolate(g.options(5), g.interpolation())),
    ("interpolate_by", |g| g.of(4)?.interpolate_by([g.value(), g.value()], g.interpolation())),
    ("l1_loss", |g| {
        let x = g.any()?;
        x.l1_loss_with(&g.beside(&x, x.shape())?, g.reduction())
    }),
    ("layer_norm", |g| {
        let x = g.any()?;
        let from = g.below(x.ndim() + 1);
        let shape = g.like(&x.shape()[from..]);
        x.layer_norm(&shape, g.maybe(&x, &shape)?.as_ref(), g.maybe(&x, &shape)?.as_ref(), g.fraction())
    }),
    ("leaky_relu", |g| g.any()?.leaky_relu(g.value())),
    ("linear", |g| {
        let x = g.any()?;
        let [inputs, outputs] = [x.shape().last().copied().unwrap_or(1), g.size()];
        x.linear(&g.beside(&x, &[outputs, inputs.min(1 << 20)])?, g.maybe(&x, &[outputs])?.as_ref())
    }),
    ("ln", |g| g.any()?.ln()),
    ("local_response_norm", |g| g.of(4)?.local_response_norm(g.option(3), g.value(), g.value(), g.value())),
    ("log_softmax", |g| g.any()?.log_softmax(g.dim())),
    ("logsumexp", |g| g.any()?.logsumexp(&g.dims()[..])),
    ("matmul", |g| {
        let x = g.any()?;
        let mut shape = x.shape().to_vec();
        if let [.., rows, columns] = &mut shape[..] {
            std::mem::swap(rows, columns);
        }
        x.matmul(&g.beside(&x, &shape)?)
    }),
    ("max", |g| g.any()?.max(&g.dims()[..])),
    ("max_pool2d", |g| g.of(4)?.max_pool2d(g.options(2), g.pool2d())),
    ("maximum", |g| pair(g, Tensor::maximum)),
    ("maxout", |g| g.any()?.maxout(g.option(2))),
    ("mean", |g| g.any()?.mean(&g.dims()[..])),
    ("min", |g| g.any()?.min_keepdim(&g.dims()[..])),
    ("minimum", |g| pair(g, Tensor::minimum)),
    ("mish", |g| g.any()?.mish()),
    ("mse_loss", |g| {
        let x = g.any()?;
        x.mse_loss_with(&g.beside(&x, x.shape())?, g.reduction())
    }),
    ("mul", |g| pair(g, Tensor::mul)),
    ("mul_scalar", |g| Ok(g.any()?.mul_scalar(g.value()))),
    ("narrow", |g| g.any()?.narrow(g.dim(), g.option(0), g.option(1))),
    ("neg", |g| Ok(g.any()?.neg())),
    ("nms", |g| {
        let count = g.size();
        let boxes = g.tensor(&[count, 4])?;
        let scores = g.beside(&boxes, &[count])?;
        if g.once_in(2) { nms(&boxes, &scores, g.fraction()) } else { batched_nms(&boxes, &scores, &g.labels(&[count], 2)?, g.fraction()) }
    }),
    ("nll_loss", |g| {
        let x = classes(g)?;
        x.nll_loss_with(&labels(g, &x)?, &g.nll(&x)?)
    }),
    ("pad", |g| {
        let ([top, bottom], [left, right]) = (g.options(1), g.options(0));
        g.of(4)?.pad([top, bottom, left, right], g.value())
    }),
    ("permute", |g| {
        let x = g.any()?;
        let mut dims: Vec<usize> = (0..x.ndim()).collect();
        if g.once_in(8) {
            dims = dims.iter().map(|&dim| g.option(dim)).collect();
        }
        dims.reverse();
        x.permute(dims)
    }),
    ("pow", |g| {
        let exponent = if g.once_in(2) { g.value() } else { g.pick(&[2.0, 3.0, 0.5, -1.0, 0.0]) };
        g.any()?.pow(exponent)
    }),
    ("recip", |g| g.any()?.recip()),
    ("relu", |g| Ok(g.any()?.relu())),
    ("relu6", |g| g.any()?.relu6()),
    ("reshape", |g| {
        let x = g.any()?;
        let mut sizes: Vec<i64> = g.like(x.shape()).iter().rev().map(|&size| size as i64).collect();
        if !sizes.is_empty() && g.once_in(2) {
            let at = g.below(sizes.len());
            sizes[at] = g.pick(&[-1, -1, -1, 0, -2, i64::MIN, i64::MAX]);
        }
        x.reshape(sizes)
    }),
    ("sigmoid", |g| g.any()?.sigmoid()),
    ("silu", |g| g.any()?.silu()),
    ("sin", |g| g.any()?.sin()),
    ("smooth_l1_loss", |g| {
        let x = g.any()?;
        x.smooth_l1_loss_with(&g.beside(&x, x.shape())?, g.fraction(), g.reduction())
    }),
    ("softmax", |g| g.any()?.softmax(g.dim())),
    ("softplus", |g| g.any()?.softplus()),
    ("split", |g| last(g.any()?.split(g.option(2), g.dim())?)),
    ("sqrt", |g| g.any()?.sqrt()),
    ("square", |g| g.any()?.square()),
    ("squeeze", |g| g.any()?.squeeze(g.dim())),
    ("stack", |g| joined(g, Tensor::stack)),
    ("stochastic_depth", |g| g.any()?.stochastic_depth(g.fraction())),
    ("sub", |g| pair(g, Tensor::sub)),
    ("sub_scalar", |g| Ok(g.any()?.sub_scalar(g.value()))),
    ("sum", |g| g.any()?.sum(&g.dims()[..])),
    ("tan", |g| g.any()?.tan()),
    ("tanh", |g| g.any()?.tanh()),
    ("to_dtype", |g| g.any()?.to_dtype(g.dtype())),
    ("to_memory_format", |g| g.of(4)?.to_memory_format(g.pick(&[MemoryFormat::ChannelsLast, MemoryFormat::RowMajor]))),
    ("transpose", |g| g.any()?.transpose(g.dim(), g.dim())),
    ("unfold", |g| g.of(4)?.unfold(g.options(2), g.unfold())),
    ("unsqueeze", |g| g.any()?.unsqueeze(g.dim())),
    ("var", |g| g.any()?.var_with(&g.dims()[..], g.option(1), g.once_in(2))),
    ("where_", |g| {
        let a = g.any()?;
        let [condition, b] = [g.like(a.shape()), g.like(a.shape())];
        let condition = g.tensor(&condition)?.gt_scalar(0.0)?;
        condition.where_(&a, &g.beside(&a, &b)?)
    }),
    ("argsort", |g| g.any()?.argsort(g.dim(), g.once_in(2))),
    ("ceil", |g| g.any()?.ceil()),
    ("celu", |g| g.any()?.celu(g.value())),
    ("cumsum", |g| g.any()?.cumsum(g.dim())),
    ("channel_shuffle", |g| g.any()?.channel_shuffle(g.option(2))),
    ("conv_transpose1d", |g| {
        let (groups, [inputs, outputs], [kernel, _]) = convolution(g);
        let shape = [g.size(), groups * inputs, g.size()];
        let shape = g.like(&shape);
        let x = g.tensor(&shape)?;
        let weight = g.beside(&x, &[groups * inputs, outputs, kernel])?;
        let options = ConvTranspose1dOptions::new().stride(g.option(1)).padding(g.option(0)).output_padding(g.option(0));
        x.conv_transpose1d(&weight, None, options.dilation(g.option(1)).groups(groups))
    }),
    ("erf", |g| g.any()?.erf()),
    ("floor", |g| g.any()?.floor()),
    ("glu", |g| g.any()?.glu(g.dim())),
    ("huber_loss", |g| {
        let x = g.any()?;
        x.huber_loss_with(&g.beside(&x, x.shape())?, g.value(), g.reduction())
    }),
    ("kl_div", |g| {
        let x = g.any()?;
        let options = KlDivOptions::new().log_target(g.once_in(2)).batch_mean(g.once_in(2)).reduction(g.reduction());
        x.kl_div_with(&g.beside(&x, x.shape())?, &options)
    }),
    ("log1p", |g| g.any()?.log1p()),
    ("max_pool2d_with_indices", |g| {
        let (y, positions) = g.of(4)?.max_pool2d_with_indices(g.options(2), g.pool2d())?;
        y.max_unpool2d(&positions, g.options(4))
    }),
    ("max_pool1d", |g| {
        let options = Pool1dOptions::new().stride(g.option(2)).padding(g.option(0)).dilation(g.option(1)).ceil_mode(g.once_in(2));
        g.of(3)?.max_pool1d(g.option(2), options)
    }),
    ("max_unpool2d", |g| {
        let x = g.of(4)?;
        let positions = g.beside(&x, x.shape())?.to_dtype(DType::I64)?;
        x.max_unpool2d(&positions, g.options(4))
    }),
    ("norm", |g| g.any()?.norm(g.value(), &g.dims()[..])),
    ("normalize", |g| g.any()?.normalize(g.value(), g.dim(), g.fraction())),
    ("one_hot", |g| {
        let shape = [g.size(), g.size()];
        g.labels(&shape, 3)?.one_hot(g.option(3))
    }),
    ("pow_by", |g| pair(g, Tensor::pow_by)),
    ("prod", |g| g.any()?.prod(&g.dims()[..])),
    ("repeat", |g| {
        let x = g.any()?;
        let repeats: Vec<usize> = (0..x.ndim() + g.below(2)).map(|_| g.option(2)).collect();
        x.repeat(repeats)
    }),
    ("roll", |g| g.any()?.roll(g.option(2) as i64, g.dim())),
    ("round", |g| g.any()?.round()),
    ("rsqrt", |g| g.any()?.rsqrt()),
    ("scatter", |g| scattered(g, |x, dim, index, src| x.scatter(dim, index, src))),
    ("scatter_add", |g| scattered(g, |x, dim, index, src| x.scatter_add(dim, index, src))),
    ("index_add", |g| {
        let x = g.any()?;
        let (dim, length) = (g.dim(), g.size());
        let bound = x.size(dim).unwrap_or(1);
        let mut shape = x.shape().to_vec();
        let axis = if dim < 0 { shape.len() as isize + dim } else { dim };
        shape.get_mut(axis as usize).into_iter().for_each(|size| *size = length);
        x.index_add(dim, &g.labels(&[length], bound)?, &g.beside(&x, &shape)?)
    }),
    ("sign", |g| g.any()?.sign()),
    ("softplus_with", |g| g.any()?.softplus_with(g.value(), g.value())),
    ("sort", |g| Ok(g.any()?.sort(g.dim(), g.once_in(2))?.0)),
    ("split by sizes", |g| {
        let sizes: Vec<usize> = (0..g.below(4)).map(|_| g.option(1)).collect();
        last(g.any()?.split(sizes, g.dim())?)
    }),
    ("topk", |g| Ok(g.any()?.topk(g.option(1), g.dim())?.0)),
    ("tril", |g| g.any()?.tril(g.option(1) as i64)),
    ("triu", |g| g.any()?.triu((g.option(1) as i64).wrapping_neg())),
    ("trunc", |g| g.any()?.trunc()),
    ("padding by modes", |g| {
        use convnet::ops::PadMode::*;
        let mode = g.pick(&[Constant(1.0), Reflect, Replicate, Circular]);
        let padding: Vec<isize> = (0..2 * g.below(4)).map(|_| (g.option(1) as isize).wrapping_sub(g.below(2) as isize)).collect();
        g.any()?.pad_with(padding, mode)
    }),
    ("comparisons", |g| {
        let compare = g.pick(&[Tensor::ne, Tensor::lt, Tensor::le, Tensor::gt, Tensor::ge] as &[fn(&Tensor, &Tensor) -> Result<Tensor>]);
        pair(g, compare)
    }),
    ("comparisons with a number", |g| {
        type Compare = fn(&Tensor, f64) -> Result<Tensor>;
        let compare = g.pick(&[Tensor::ne_scalar, Tensor::lt_scalar, Tensor::le_scalar, Tensor::gt_scalar] as &[Compare]);
        compare(&g.any()?, g.value())
    }),
    ("convolutions by every algorithm", |g| {
        use ConvAlgorithm::*;
        let algorithm = g.pick(&[Im2col, Direct, Winograd2, Winograd4, Depthwise, Naive]);
        let call = g.pick(&[conv1d, conv2d, conv_transpose2d] as &[Call]);
        convnet::with_algorithm(algorithm, || {
            let y = call(g)?;
            // Backward runs here, where the algorithm is forced; a result that wants no gradient is
            // an error.
            drop(backward(&y));
            Ok(y)
        })
    }),
    ("optimizers", |g| {
        let w = nn::Parameter::new(g.any()?);
        let gradients = w.tensor().mul(&g.beside(&w.tensor(), &w.shape())?)?.sum(..)?.backward()?;
        let (rate, decay, share) = (g.value(), g.fraction(), g.fraction());
        match g.below(5) {
            0 => Sgd::new([w.clone()], rate).momentum(share).weight_decay(decay).nesterov(g.once_in(2)).step(&gradients)?,
            1 => Adam::new([w.clone()], rate).betas(share, g.fraction()).eps(decay).step(&gradients)?,
            2 => AdamW::new([w.clone()], rate).weight_decay(decay).step(&gradients)?,
            3 => RmsProp::new([w.clone()], rate).momentum(share).centered(g.once_in(2)).step(&gradients)?,
            _ => Adagrad::new([w.clone()], rate).weight_decay(decay).step(&gradients)?,
        }
        Ok(w.tensor())
    }),
    ("nn::AdaptiveAvgPool2d", |g| nn::AdaptiveAvgPool2d::new(g.options(2)).forward(&g.of(4)?)),
    ("nn::AdaptiveMaxPool2d", |g| nn::AdaptiveMaxPool2d::new(g.options(2)).forward(&g.of(4)?)),
    ("nn::AvgPool2d", |g| {
        let [kernel, stride, padding] = [g.options(2), g.options(1), g.options(1)];
        nn::AvgPool2d::new(kernel).stride(stride).padding(padding).ceil_mode(g.once_in(2)).forward(&g.of(4)?)
    }),
    ("nn::BatchNorm2d", |g| {
        let x = g.of(4)?;
        let layer = nn::BatchNorm2d::new(sized(g, &x)).eps(g.fraction()).momentum(g.fraction()).affine(g.once_in(2));
        layer.track_running_stats(g.once_in(2)).forward(&x)
    }),
    ("nn::Conv1d", |g| {
        let x = g.of(3)?;
        let layer = nn::Conv1d::new(sized(g, &x), g.size(), g.size()).stride(g.option(1)).padding(g.option(1));
        layer.dilation(g.option(1)).bias(g.once_in(2)).forward(&x)
    }),
    ("nn::Conv2d", |g| {
        let x = g.of(4)?;
        let layer = nn::Conv2d::new(sized(g, &x), g.size(), [g.size(), g.size()]).stride(g.options(1)).padding(g.options(1));
        layer.dilation(g.options(1)).bias(g.once_in(2)).forward(&x)
    }),
    ("nn::ConvTranspose2d", |g| {
        let x = g.of(4)?;
        let layer = nn::ConvTranspose2d::new(sized(g, &x), g.size(), [g.size(), g.size()]).stride(g.options(2));
        layer.padding(g.options(0)).output_padding(g.options(0)).dilation(g.options(1)).forward(&x)
    }),
    ("nn::GroupNorm", |g| {
        let x = g.any()?;
        nn::GroupNorm::new(1, sized(g, &x)).eps(g.fraction()).affine(g.once_in(2)).forward(&x)
    }),
    ("nn::LayerNorm", |g| {
        let x = g.any()?;
        let last = x.shape().last().map_or(1, |&size| size.min(4096));
        let shape = g.like(&[last]);
        nn::LayerNorm::new(&shape).eps(g.fraction()).affine(g.once_in(2)).forward(&x)
    }),
    ("nn::Linear", |g| {
        let x = g.any()?;
        let last = x.shape().last().map_or(1, |&size| size.min(4096));
        nn::Linear::new(last, g.size()).bias(g.once_in(2)).forward(&x)
    }),
    ("nn layers without sizes", |g| {
        let layers: [Box<dyn Module>; 10] = [
            Box::new(nn::ELU::new(g.value())),
            Box::new(nn::LeakyReLU::new(g.value())),
            Box::new(nn::LocalResponseNorm::new(g.option(5))),
            Box::new(nn::LogSoftmax::new(g.dim())),
            Box::new(nn::Softmax::new(g.dim())),
            Box::new(nn::Maxout::new(g.option(2))),
            Box::new(nn::Flatten::new(g.dim(), g.dim())),
            Box::new(nn::Dropout::new(g.fraction())),
            Box::new(nn::Dropout2d::new(g.fraction())),
            Box::new(nn::StochasticDepth::new(g.fraction())),
        ];
        layers[g.below(layers.len())].forward(&g.any()?)
    }),
    ("nn::MaxPool2d", |g| {
        let [kernel, stride, padding] = [g.options(2), g.options(1), g.options(1)];
        let layer = nn::MaxPool2d::new(kernel).stride(stride).padding(padding).dilation(g.options(1));
        layer.ceil_mode(g.once_in(2)).forward(&g.of(4)?)
    }),
    ("nn::Sequential with its summary and receptive fields", |g| {
        let x = g.of(4)?;
        let conv = nn::Conv2d::new(sized(g, &x), g.size(), [g.size(), g.size()]).stride(g.options(1)).padding(g.options(1));
        let pool = nn::MaxPool2d::new(g.options(2)).stride(g.options(2));
        let inner = nn::Checkpoint::new(nn::Sequential::new().push(nn::ReLU).push(pool));
        let net = nn::Sequential::new().push(conv).push(inner).push(nn::Flatten);
        let shape = g.shape();
        for shape in [&shape[..], x.shape()] {
            // Errors here do not keep the network from running.
            drop((net.summary(shape), net.receptive_field(shape)));
        }
        net.forward(&x)
    }),
    ("nn::Upsample", |g| {
        let layer = if g.once_in(2) { nn::Upsample::new(g.options(2)) } else { nn::Upsample::to_size(g.options(5)) };
        let layer = if g.once_in(2) { layer.bilinear(g.once_in(2)) } else { layer };
        layer.forward(&g.of(4)?)
    }),
    ("nn::conv_bn_add_act", |g| {
        let x = g.of(4)?;
        let [inputs, outputs] = [sized(g, &x), g.size()];
        let conv = nn::Conv2d::new(inputs, outputs, 3).padding(g.options(1)).stride(g.options(1)).bias(g.once_in(2));
        let bn = nn::BatchNorm2d::new(outputs);
        let shape = x.shape().iter().enumerate().map(|(dim, &size)| if dim == 1 { outputs } else { size }).collect::<Vec<_>>();
        nn::conv_bn_add_act(&conv, &bn, &x, &g.beside(&x, &shape)?, g.activation())
    }),
];

fn pair(g: &mut Generator, call: fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let x = g.any()?;
    let mut shape = x.shape().to_vec();
    if !shape.is_empty() && g.once_in(2) {
        let at = g.below(shape.len());
        shape[at] = 1;
    }
    call(&x, &g.beside(&x, &shape)?)
}

fn scattered(g: &mut Generator, call: fn(&Tensor, isize, &Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let x = g.any()?;
    let (dim, shape) = (g.dim(), x.shape().to_vec());
    let bound = x.size(dim).unwrap_or(1);
    let index = g.labels(&shape, bound)?;
    call(&x, dim, &index, &g.beside(&x, &shape)?)
}

fn joined(g: &mut Generator, call: fn(&[&Tensor], isize) -> Result<Tensor>) -> Result<Tensor> {
    let first = g.any()?;
    let others = (0..g.below(3)).map(|_| g.beside(&first, first.shape())).collect::<Result<Vec<_>>>()?;
    let all: Vec<&Tensor> = if g.once_in(16) { vec![] } else { std::iter::once(&first).chain(&others).collect() };
    call(&all, g.dim())
}

fn last(pieces: Vec<Tensor>) -> Result<Tensor> {
    Ok(pieces.into_iter().next_back().unwrap_or_else(|| Tensor::zeros([0])))
}

/// The channels of `x`, as a shape.
fn channels(x: &Tensor) -> [usize; 1] {
    [x.shape().get(1).map_or(1, |&size| size.min(4096))]
}

/// The channels that a layer for `x` is made for: those of `x`, most times.
fn sized(g: &mut Generator, x: &Tensor) -> usize {
    if g.once_in(8) { g.size() } else { channels(x)[0] }
}

/// Scores of classes.
fn classes(g: &mut Generator) -> Result<Tensor> {
    let ndim = g.pick(&[2, 2, 3, 4]);
    g.of(ndim)
}

/// Labels for scores of classes.
fn labels(g: &mut Generator, x: &Tensor) -> Result<Tensor> {
    let mut shape = x.shape().to_vec();
    let classes = if shape.len() > 1 { shape.remove(1) } else { 1 };
    g.labels(&shape, classes)
}

fn batch_norm(g: &mut Generator) -> Result<Tensor> {
    let x = g.any()?;
    let shape = channels(&x);
    let (mean, var) = (g.beside(&x, &shape)?, g.beside(&x, &shape)?);
    let running = (!g.once_in(3)).then_some((&mean, &var));
    x.batch_norm(running, g.maybe(&x, &shape)?.as_ref(), g.maybe(&x, &shape)?.as_ref(), g.fraction())
}

fn batch_norm_act(g: &mut Generator) -> Result<Tensor> {
    let x = g.of(4)?;
    let shape = channels(&x);
    let (weight, bias, shortcut) = (g.maybe(&x, &shape)?, g.maybe(&x, &shape)?, g.maybe(&x, x.shape())?);
    Ok(x.batch_norm_act(weight.as_ref(), bias.as_ref(), g.fraction(), shortcut.as_ref(), g.activation())?.output)
}

/// Sizes of a convolution: groups, channels of input and output in each, and the kernel's sides.
fn convolution(g: &mut Generator) -> (usize, [usize; 2], [usize; 2]) {
    (g.pick(&[1, 1, 2, 3]), [g.size(), g.size()], [g.size(), g.size()])
}

fn conv2d(g: &mut Generator) -> Result<Tensor> {
    let (groups, [inputs, outputs], [kh, kw]) = convolution(g);
    let shape = [g.size(), groups * inputs, 2 + g.size(), 2 + g.size()];
    let shape = g.like(&shape);
    let x = g.tensor(&shape)?;
    let (weight, bias) = (g.beside(&x, &[groups * outputs, inputs, kh, kw])?, g.maybe(&x, &[groups * outputs])?);
    x.conv2d(&weight, bias.as_ref(), g.conv2d(groups))
}

fn conv1d(g: &mut Generator) -> Result<Tensor> {
    let (groups, [inputs, outputs], [kernel, _]) = convolution(g);
    let shape = [g.size(), groups * inputs, 2 + g.size()];
    let shape = g.like(&shape);
    let x = g.tensor(&shape)?;
    let (weight, bias) = (g.beside(&x, &[groups * outputs, inputs, kernel])?, g.maybe(&x, &[groups * outputs])?);
    x.conv1d(&weight, bias.as_ref(), g.conv1d(groups))
}

fn conv_transpose2d(g: &mut Generator) -> Result<Tensor> {
    let (groups, [inputs, outputs], [kh, kw]) = convolution(g);
    let shape = [g.size(), groups * inputs, g.size(), g.size()];
    let shape = g.like(&shape);
    let x = g.tensor(&shape)?;
    let (weight, bias) = (g.beside(&x, &[groups * inputs, outputs, kh, kw])?, g.maybe(&x, &[groups * outputs])?);
    x.conv_transpose2d(&weight, bias.as_ref(), g.conv_transpose2d(groups))
}

#[test]
fn the_calls_cover_every_registered_operation() {
    for (operation, _) in OPERATIONS {
        assert!(CALLS.iter().any(|(name, _)| name == operation), "{operation} has no call in tests/fuzz/operations.rs");
    }
}

#[test]
fn strides_and_dilations_beyond_the_input_cost_no_more_than_small_ones() -> Result<()> {
    let x = Tensor::ones([1, 1, 3, 1]).with_grad();
    let weight = Tensor::ones([3, 1, 4, 2]).with_grad();
    let gradient = |stride: [usize; 2]| {
        let options = Conv2dOptions { stride, padding: [1, 1], ..Default::default() };
        x.conv2d(&weight, None, options)?.sum(..)?.backward()?.get(&x).expect("a gradient").to_vec::<f32>()
    };
    for large in [1 << 31, 1 << 62] {
        assert_eq!(gradient([large, large])?, gradient([5, 3])?);
    }
    Ok(())
}

#[test]
fn rows_without_elements_take_no_memory_in_products_and_their_gradients() -> Result<()> {
    let x = Tensor::zeros([7, 1 << 20, 0]).with_grad();
    let (result, _, most) = measured(|| backward(&convnet::nn::Linear::new(0, 0).forward(&x)?));
    assert!(matches!(result, Ok(Ok(()))) && most < 1 << 16, "{most} bytes");
    Ok(())
}

#[test]
fn large_strides_of_transposed_convolutions_take_memory_in_proportion_to_the_result() -> Result<()> {
    // The megabytes held here would raise the limit that another test sets at the same time.
    with_limit(64 << 20, || {
        let layer = nn::ConvTranspose2d::new(1, 1, [4, 1]).stride([2, 1 << 16]).padding([2, 0]);
        let x = Tensor::ones([1, 1, 2, 4]);
        let (result, _, most) = measured(|| layer.forward(&x));
        let y = result.expect("no panic")?;
        assert_eq!(y.shape(), [1, 1, 2, 3 * (1 << 16) + 1]);
        assert!(most < 4 * 4 * y.numel(), "{most} bytes for {} elements", y.numel());
        Ok(())
    })
}

#[test]
fn no_channels_divide_into_any_number_of_pieces() -> Result<()> {
    let x = Tensor::zeros([2, 0, 3]);
    for pieces in [1, 2, usize::MAX] {
        assert_eq!(x.maxout(pieces)?.shape(), [2, 0, 3]);
    }
    Ok(())
}

/// The call that runs and since when; `None` once all have returned.
static RUNNING: Mutex<Option<(String, Instant)>> = Mutex::new(None);

/// Ends the process, and names the call, when a call does not return.
fn start_watchdog() {
    // Far above [`LONGEST`], the limit for calls that return: a busy machine must not end the run.
    const HANGS: Duration = Duration::from_secs(120);
    *RUNNING.lock().unwrap() = Some(("none yet".to_string(), Instant::now()));
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            match &*RUNNING.lock().unwrap() {
                Some((case, since)) if since.elapsed() > HANGS => {
                    eprintln!("{case} has not returned in {HANGS:?}");
                    std::process::abort();
                }
                Some(_) => {}
                None => return,
            }
        }
    });
}

#[test]
fn operations_and_layers_return_a_value_or_an_error_whatever_they_are_called_with() {
    with_limit(LIMIT, call_all);
}

fn call_all() {
    start_watchdog();
    // As many rounds over the table as give about ten times the number of files.
    let rounds = inputs().div_ceil(CALLS.len() / 10);
    let (mut values, mut walks, mut errors, mut faults) = (0, 0, 0, vec![]);
    let (mut slowest, mut largest) = ((Duration::ZERO, String::new()), (0, String::new()));
    for number in 0..rounds * CALLS.len() {
        let (name, call) = CALLS[number % CALLS.len()];
        let case = format!("{name}, case {number}");
        *RUNNING.lock().unwrap() = Some((case.clone(), Instant::now()));
        let (result, time, most) = measured(|| call(&mut Generator::new(number as u64)).map(|y| (backward(&y), y)));
        match result {
            Ok(Ok((walk, _))) => {
                values += 1;
                walks += usize::from(walk.is_ok());
            }
            Ok(Err(_)) => errors += 1,
            Err(_) => faults.push(format!("{case} panics")),
        }
        if time > LONGEST {
            faults.push(format!("{case} takes {time:?}"));
        }
        if most > 2 * LIMIT {
            faults.push(format!("{case} holds {most} bytes"));
        }
        slowest = slowest.max((time, case.clone()));
        largest = largest.max((most, case));
    }
    *RUNNING.lock().unwrap() = None;
    println!("{values} values, {walks} of them with gradients, {errors} errors, slowest {slowest:?}, at most {largest:?} bytes held");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(values > errors / 4 && errors > values / 20, "{values} values and {errors} errors");
}

/// Walks back from a value. A tensor that wants no gradient is an error.
fn backward(y: &Tensor) -> Result<()> {
    let total = y.sum(..)?;
    total.backward()?;
    Ok(())
}
