//! The interpreter: a case's operation called as a user would call it.

use convnet::nn::Activation;
use convnet::ops::{
    BceOptions, Conv1dOptions, Conv2dOptions, ConvTranspose1dOptions, ConvTranspose2dOptions, CrossEntropyOptions, CtcOptions, GridFilter,
    GridPadding, GridSampleOptions, Interpolation, KlDivOptions, NllOptions, Pool1dOptions, Pool2dOptions, Reduction, TripletOptions,
    UnfoldOptions, affine_grid, batched_nms, box_area, box_iou, nms,
};
use convnet::{DType, MemoryFormat, Result, Tensor};

use super::fixture::{Args, Axes, Tensors};

/// Calls a method that takes dimensions, in each form they come in.
macro_rules! over_axes {
    ($x:expr, $args:expr, $plain:ident, $keep:ident) => {
        match ($args.axes(), $args.keepdim()) {
            (Axes::All, false) => $x.$plain(..),
            (Axes::All, true) => $x.$keep(..),
            (Axes::One(dim), false) => $x.$plain(dim),
            (Axes::One(dim), true) => $x.$keep(dim),
            (Axes::Several(dims), false) => $x.$plain(&dims[..]),
            (Axes::Several(dims), true) => $x.$keep(&dims[..]),
        }
    };
}

/// Runs the operation `op` on the tensors of a case.
///
/// # Panics
/// When the operation is not known here, or misses an argument.
pub fn run(op: &str, args: &Args, t: &Tensors) -> Result<Tensor> {
    let families = [arithmetic, elementwise, reduction, shape, selection, boxes, composed, layer, loss];
    families.iter().find_map(|family| family(op, args, t)).unwrap_or_else(|| panic!("tests/operations/run.rs does not know {op}"))
}

fn arithmetic(op: &str, args: &Args, t: &Tensors) -> Option<Result<Tensor>> {
    let x = t.get("x")?;
    let other = || &t["other"];
    let value = || args.number("value");
    Some(match op {
        "add" => x.add(other()),
        "sub" => x.sub(other()),
        "mul" => x.mul(other()),
        "div" => x.div(other()),
        "maximum" => x.maximum(other()),
        "minimum" => x.minimum(other()),
        "add_scalar" => Ok(x.add_scalar(value())),
        "sub_scalar" => Ok(x.sub_scalar(value())),
        "mul_scalar" => Ok(x.mul_scalar(value())),
        "div_scalar" => Ok(x.div_scalar(value())),
        "eq" => x.eq(other()),
        "ne" => x.ne(other()),
        "gt" => x.gt(other()),
        "ge" => x.ge(other()),
        "lt" => x.lt(other()),
        "le" => x.le(other()),
        "eq_scalar" => x.eq_scalar(value()),
        "ne_scalar" => x.ne_scalar(value()),
        "gt_scalar" => x.gt_scalar(value()),
        "ge_scalar" => x.ge_scalar(value()),
        "lt_scalar" => x.lt_scalar(value()),
        "le_scalar" => x.le_scalar(value()),
        "where_" => t["cond"].where_(x, other()),
        _ => return None,
    })
}

fn elementwise(op: &str, args: &Args, t: &Tensors) -> Option<Result<Tensor>> {
    let x = t.get("x")?;
    Some(match op {
        "neg" => Ok(x.neg()),
        "abs" => Ok(x.abs()),
        "relu" => Ok(x.relu()),
        "pow" => x.pow(args.number("exponent")),
        "exp" => x.exp(),
        "ln" => x.ln(),
        "sqrt" => x.sqrt(),
        "square" => x.square(),
        "recip" => x.recip(),
        "sin" => x.sin(),
        "cos" => x.cos(),
        "tan" => x.tan(),
        "atan" => x.atan(),
        "clamp" => x.clamp(args.number("min"), args.number("max")),
        "leaky_relu" => x.leaky_relu(args.number("slope")),
        "elu" => x.elu(args.number("alpha")),
        "gelu" => x.gelu(),
        "gelu_tanh" => x.gelu_tanh(),
        "silu" => x.silu(),
        "mish" => x.mish(),
        "sigmoid" => x.sigmoid(),
        "tanh" => x.tanh(),
        "hardsigmoid" => x.hardsigmoid(),
        "hardswish" => x.hardswish(),
        "relu6" => x.relu6(),
        "softplus" => x.softplus(),
        "softmax" => x.softmax(args.dim("dim")),
        "log_softmax" => x.log_softmax(args.dim("dim")),
        "maxout" => x.maxout(args.size("pieces")),
        _ => return None,
    })
}

fn reduction(op: &str, args: &Args, t: &Tensors) -> Option<Result<Tensor>> {
    let x = t.get("x")?;
    Some(match op {
        "sum" => over_axes!(x, args, sum, sum_keepdim),
        "mean" => over_axes!(x, args, mean, mean_keepdim),
        "max" => over_axes!(x, args, max, max_keepdim),
        "min" => over_axes!(x, args, min, min_keepdim),
        "argmax" => over_axes!(x, args, argmax, argmax_keepdim),
        "argmin" => over_axes!(x, args, argmin, argmin_keepdim),
        "logsumexp" => over_axes!(x, args, logsumexp, logsumexp_keepdim),
        "var" => match args.get("correction") {
            None => over_axes!(x, args, var, var_keepdim),
            Some(correction) => match args.axes() {
                Axes::All => x.var_with(.., correction, args.keepdim()),
                Axes::One(dim) => x.var_with(dim, correction, args.keepdim()),
                Axes::Several(dims) => x.var_with(&dims[..], correction, args.keepdim()),
            },
        },
        "matmul" => x.matmul(&t["other"]),
        "linear" => x.linear(&t["weight"], t.get("bias")),
        _ => return None,
    })
}

fn shape(op: &str, args: &Args, t: &Tensors) -> Option<Result<Tensor>> {
    let dim = || args.dim("dim");
    let shape = || args.get::<Vec<i64>>("shape").expect("a shape");
    let sizes = |name| args.get::<Vec<usize>>(name).expect("a list of sizes");
    // The inputs of `cat` and `stack` have other names.
    match op {
        "cat" => return Some(Tensor::cat(&t.all(), dim())),
        "stack" => return Some(Tensor::stack(&t.all(), dim())),
        _ => {}
    }
    let x = t.get("x")?;
    let piece = |pieces: Vec<Tensor>| pieces[args.size("piece")].clone();
    Some(match op {
        "reshape" => x.reshape(shape()),
        "flatten" => x.flatten(args.dim("start"), args.dim("end")),
        "permute" => x.permute(sizes("dims")),
        "transpose" => x.transpose(args.dim("dim0"), args.dim("dim1")),
        "squeeze" => x.squeeze(dim()),
        "unsqueeze" => x.unsqueeze(dim()),
        "expand" => x.expand(sizes("shape")),
        "narrow" => x.narrow(dim(), args.size("start"), args.size("length")),
        "chunk" => x.chunk(args.size("chunks"), dim()).map(piece),
        "split" => x.split(args.size("size"), dim()).map(piece),
        "pad" => x.pad(args.get("padding").expect("four sizes"), args.number("value")),
        "flip" => x.flip(&args.get::<Vec<i64>>("dims").expect("dimensions")[..]),
        "index_select" => x.index_select(dim(), &t["index"]),
        "gather" => x.gather(dim(), &t["index"]),
        "contiguous" => x.contiguous(),
        "to_memory_format" => x.to_memory_format(match args.text("format") {
            Some("ChannelsLast") => MemoryFormat::ChannelsLast,
            _ => MemoryFormat::RowMajor,
        }),
        "to_dtype" => x.to_dtype(dtype(args)),
        _ => return None,
    })
}

/// Sorting, scattering, rearranging.
fn selection(op: &str, args: &Args, t: &Tensors) -> Option<Result<Tensor>> {
    let x = t.get("x")?;
    let dim = || args.dim("dim");
    let descending = || args.get("descending").unwrap_or(false);
    Some(match op {
        "argsort" => x.argsort(dim(), descending()),
        "sort" => x.sort(dim(), descending()).map(|(values, _)| values),
        "topk" => x.topk(args.size("k"), dim()).map(|(values, _)| values),
        "max_with_index" => x.max_with_index(dim()).map(|(values, _)| values),
        "scatter" => x.scatter(dim(), &t["index"], &t["src"]),
        "scatter_add" => x.scatter_add(dim(), &t["index"], &t["src"]),
        "index_add" => x.index_add(dim(), &t["index"], &t["src"]),
        "roll" => x.roll(args.get("shift").expect("a shift"), dim()),
        "channel_shuffle" => x.channel_shuffle(args.size("groups")),
        "repeat" => x.repeat(args.get::<Vec<usize>>("repeats").expect("numbers of repeats")),
        "tril" => x.tril(args.get("diagonal").expect("a diagonal")),
        "triu" => x.triu(args.get("diagonal").expect("a diagonal")),
        "one_hot" => x.one_hot(args.size("classes")),
        "masked_fill" => x.masked_fill(&t["mask"], args.number("value")),
        "cumsum" => x.cumsum(dim()),
        "prod" => over_axes!(x, args, prod, prod_keepdim),
        "any" => x.any(dims(args)),
        "all" => x.all(dims(args)),
        "isnan" => x.isnan(),
        "isfinite" => x.isfinite(),
        _ => return None,
    })
}

fn boxes(op: &str, args: &Args, t: &Tensors) -> Option<Result<Tensor>> {
    let x = t.get("x")?;
    let threshold = || args.number("iou_threshold");
    Some(match op {
        "box_area" => box_area(x),
        "box_iou" => box_iou(x, &t["other"]),
        "nms" => nms(x, &t["scores"], threshold()),
        "batched_nms" => batched_nms(x, &t["scores"], &t["classes"], threshold()),
        _ => return None,
    })
}

/// The one dimension of a case.
fn dims(args: &Args) -> i64 {
    match args.axes() {
        Axes::One(dim) => dim,
        _ => panic!("one dimension"),
    }
}

/// Functions, norms, activations and losses that are made of other operations.
fn composed(op: &str, args: &Args, t: &Tensors) -> Option<Result<Tensor>> {
    let x = t.get("x")?;
    let target = || &t["target"];
    let reduction = match args.text("reduction") {
        Some("None") => Reduction::None,
        Some("Sum") => Reduction::Sum,
        _ => Reduction::Mean,
    };
    Some(match op {
        "log1p" => x.log1p(),
        "rsqrt" => x.rsqrt(),
        "erf" => x.erf(),
        "sign" => x.sign(),
        "floor" => x.floor(),
        "ceil" => x.ceil(),
        "trunc" => x.trunc(),
        "round" => x.round(),
        "pow_by" => x.pow_by(&t["other"]),
        "clamp_by" => x.clamp_by(t.get("min"), t.get("max")),
        "std" => match args.axes() {
            Axes::All => x.std_with(.., 1, args.keepdim()),
            Axes::One(dim) => x.std_with(dim, 1, args.keepdim()),
            Axes::Several(dims) => x.std_with(&dims[..], 1, args.keepdim()),
        },
        "norm" => {
            let p = if args.number("p") < 0.0 { f64::INFINITY } else { args.number("p") };
            match args.axes() {
                Axes::All => x.norm(p, ..),
                Axes::One(dim) => x.norm(p, dim),
                Axes::Several(dims) => x.norm(p, &dims[..]),
            }
        }
        "normalize" => x.normalize(2.0, args.dim("dim"), 1e-12),
        "cosine_similarity" => x.cosine_similarity(&t["other"], args.dim("dim"), 1e-8),
        "selu" => x.selu(),
        "logsigmoid" => x.logsigmoid(),
        "celu" => x.celu(args.number("alpha")),
        "glu" => x.glu(args.dim("dim")),
        "softplus_with" => x.softplus_with(args.number("beta"), args.number("threshold")),
        "huber_loss" => x.huber_loss_with(target(), args.number("delta"), reduction),
        "binary_cross_entropy" => x.binary_cross_entropy_with(target(), reduction),
        "kl_div" => x.kl_div_with(target(), &KlDivOptions::new().reduction(reduction)),
        "kl_div_with" => {
            let options = KlDivOptions::new().log_target(args.get("log_target").unwrap_or_default());
            x.kl_div_with(target(), &options.batch_mean(args.text("reduction") == Some("BatchMean")).reduction(reduction))
        }
        "triplet_margin_loss" => x.triplet_margin_loss(&t["other"], target(), args.number("margin")),
        "triplet_margin_loss_with" => {
            let options = TripletOptions::new().margin(args.number("margin")).p(args.number("p")).swap(args.get("swap").unwrap_or(false));
            x.triplet_margin_loss_with(&t["other"], target(), &options.reduction(reduction))
        }
        "margin_ranking_loss_with" => x.margin_ranking_loss_with(&t["other"], target(), args.number("margin"), reduction),
        "margin_ranking_loss" => x.margin_ranking_loss(&t["other"], target(), args.number("margin")),
        _ => return None,
    })
}

/// The element type that a case of `to_dtype` asks for.
pub fn dtype(args: &Args) -> DType {
    let all = [DType::U8, DType::I64, DType::F32, DType::F64];
    let named = args.text("dtype").expect("a dtype");
    all.into_iter().find(|dtype| format!("{dtype:?}") == named).expect("a dtype's name")
}

fn layer(op: &str, args: &Args, t: &Tensors) -> Option<Result<Tensor>> {
    let x = t.get("x")?;
    let (weight, bias) = (t.get("weight"), t.get("bias"));
    let eps = || args.number("eps");
    Some(match op {
        "conv2d" => x.conv2d(&t["weight"], bias, conv2d_options(args)),
        "conv1d" => x.conv1d(&t["weight"], bias, conv1d_options(args)),
        "conv_transpose2d" => x.conv_transpose2d(&t["weight"], bias, conv_transpose2d_options(args)),
        "unfold" => x.unfold(args.pair("kernel"), unfold_options(args)),
        "fold" => x.fold(args.pair("output_size"), args.pair("kernel"), unfold_options(args)),
        "max_pool2d" => x.max_pool2d(args.pair("kernel"), pool2d_options(args)),
        "avg_pool2d" => x.avg_pool2d(args.pair("kernel"), pool2d_options(args)),
        "conv_transpose1d" => x.conv_transpose1d(&t["weight"], bias, conv_transpose1d_options(args)),
        "max_pool1d" => x.max_pool1d(args.size("kernel"), pool1d_options(args)),
        "avg_pool1d" => x.avg_pool1d(args.size("kernel"), pool1d_options(args)),
        "max_pool2d_with_indices" => x.max_pool2d_with_indices(args.pair("kernel"), pool2d_options(args)).map(|(values, _)| values),
        "max_pool2d_indices" => x.max_pool2d_with_indices(args.pair("kernel"), pool2d_options(args)).map(|(_, positions)| positions),
        "max_unpool2d" => x.max_unpool2d(&t["indices"], args.pair("size")),
        "adaptive_avg_pool1d" => x.adaptive_avg_pool1d(args.size("size")),
        "adaptive_avg_pool2d" => x.adaptive_avg_pool2d(args.pair("size")),
        "adaptive_max_pool2d" => x.adaptive_max_pool2d(args.pair("size")),
        "batch_norm" => x.batch_norm(t.get("mean").zip(t.get("var")), weight, bias, eps()),
        "batch_norm_train" => x.batch_norm_train(weight, bias, eps()).map(|parts| match args.text("part") {
            Some("mean") => parts.mean,
            Some("var") => parts.var,
            _ => parts.output,
        }),
        "batch_norm_act" => {
            let activation = match args.text("activation") {
                Some("Relu") => Activation::Relu,
                Some("Relu6") => Activation::Relu6,
                Some("Silu") => Activation::Silu,
                Some("Hardswish") => Activation::Hardswish,
                Some("Sigmoid") => Activation::Sigmoid,
                Some("Hardsigmoid") => Activation::Hardsigmoid,
                _ => Activation::Linear,
            };
            x.batch_norm_act(weight, bias, eps(), t.get("shortcut"), activation).map(|parts| parts.output)
        }
        "layer_norm" => x.layer_norm(&args.get::<Vec<usize>>("normalized_shape").expect("a shape"), weight, bias, eps()),
        "group_norm" => x.group_norm(args.size("groups"), weight, bias, eps()),
        "local_response_norm" => x.local_response_norm(args.size("size"), args.number("alpha"), args.number("beta"), args.number("k")),
        "grid_sample" => {
            let filter = match args.text("mode") {
                Some("nearest") => GridFilter::Nearest,
                Some("bicubic") => GridFilter::Bicubic,
                _ => GridFilter::Bilinear,
            };
            let padding = match args.text("padding") {
                Some("border") => GridPadding::Border,
                Some("reflection") => GridPadding::Reflection,
                _ => GridPadding::Zeros,
            };
            let align_corners = args.get("align_corners").unwrap_or_default();
            x.grid_sample(&t["grid"], GridSampleOptions { filter, padding, align_corners })
        }
        "affine_grid" => affine_grid(x, args.pair("size"), args.get("align_corners").unwrap_or_default()),
        "interpolate" => {
            let align_corners = args.get("align_corners").unwrap_or_default();
            let mode = match args.text("mode") {
                Some("Nearest") => Interpolation::Nearest,
                Some("NearestExact") => Interpolation::NearestExact,
                Some("Bilinear") => Interpolation::Bilinear { align_corners },
                _ => Interpolation::Bicubic { align_corners },
            };
            match args.get::<[f64; 2]>("factors") {
                Some(factors) => x.interpolate_by(factors, mode),
                None => x.interpolate(args.pair("size"), mode),
            }
        }
        _ => return None,
    })
}

fn conv2d_options(args: &Args) -> Conv2dOptions {
    let default = Conv2dOptions::default();
    Conv2dOptions {
        stride: args.get("stride").unwrap_or(default.stride),
        padding: args.get("padding").unwrap_or(default.padding),
        dilation: args.get("dilation").unwrap_or(default.dilation),
        groups: args.get("groups").unwrap_or(default.groups),
    }
}

fn conv1d_options(args: &Args) -> Conv1dOptions {
    let default = Conv1dOptions::default();
    Conv1dOptions {
        stride: args.get("stride").unwrap_or(default.stride),
        padding: args.get("padding").unwrap_or(default.padding),
        dilation: args.get("dilation").unwrap_or(default.dilation),
        groups: args.get("groups").unwrap_or(default.groups),
    }
}

fn conv_transpose2d_options(args: &Args) -> ConvTranspose2dOptions {
    let default = ConvTranspose2dOptions::default();
    ConvTranspose2dOptions {
        stride: args.get("stride").unwrap_or(default.stride),
        padding: args.get("padding").unwrap_or(default.padding),
        output_padding: args.get("output_padding").unwrap_or(default.output_padding),
        dilation: args.get("dilation").unwrap_or(default.dilation),
        groups: args.get("groups").unwrap_or(default.groups),
    }
}

fn conv_transpose1d_options(args: &Args) -> ConvTranspose1dOptions {
    let default = ConvTranspose1dOptions::default();
    ConvTranspose1dOptions {
        stride: args.get("stride").unwrap_or(default.stride),
        padding: args.get("padding").unwrap_or(default.padding),
        output_padding: args.get("output_padding").unwrap_or(default.output_padding),
        dilation: args.get("dilation").unwrap_or(default.dilation),
        groups: args.get("groups").unwrap_or(default.groups),
    }
}

fn unfold_options(args: &Args) -> UnfoldOptions {
    let default = UnfoldOptions::default();
    UnfoldOptions {
        stride: args.get("stride").unwrap_or(default.stride),
        padding: args.get("padding").unwrap_or(default.padding),
        dilation: args.get("dilation").unwrap_or(default.dilation),
    }
}

fn pool2d_options(args: &Args) -> Pool2dOptions {
    let default = Pool2dOptions::default();
    Pool2dOptions {
        stride: args.get("stride").unwrap_or(default.stride),
        padding: args.get("padding").unwrap_or(default.padding),
        dilation: args.get("dilation").unwrap_or(default.dilation),
        ceil_mode: args.get("ceil_mode").unwrap_or(default.ceil_mode),
        count_include_pad: args.get("count_include_pad").unwrap_or(default.count_include_pad),
        divisor_override: args.get("divisor_override"),
    }
}

fn pool1d_options(args: &Args) -> Pool1dOptions {
    let default = Pool1dOptions::default();
    Pool1dOptions {
        stride: args.get("stride").unwrap_or(default.stride),
        padding: args.get("padding").unwrap_or(default.padding),
        dilation: args.get("dilation").unwrap_or(default.dilation),
        ceil_mode: args.get("ceil_mode").unwrap_or(default.ceil_mode),
        count_include_pad: args.get("count_include_pad").unwrap_or(default.count_include_pad),
    }
}

fn loss(op: &str, args: &Args, t: &Tensors) -> Option<Result<Tensor>> {
    let x = t.get("x")?;
    let target = t.get("target")?;
    // Without options the short form is called.
    let plain = args.is_empty() && t.get("weight").is_none() && t.get("pos_weight").is_none();
    let reduction = match args.text("reduction") {
        Some("None") => Reduction::None,
        Some("Sum") => Reduction::Sum,
        _ => Reduction::Mean,
    };
    let weight = t.get("weight").cloned();
    Some(match op {
        "cross_entropy" if plain => x.cross_entropy(target),
        "cross_entropy" => {
            let default = CrossEntropyOptions::default();
            let ignore_index = args.get("ignore_index").unwrap_or(default.ignore_index);
            let label_smoothing = args.get("label_smoothing").unwrap_or(default.label_smoothing);
            x.cross_entropy_with(target, &CrossEntropyOptions { weight, ignore_index, label_smoothing, reduction })
        }
        "nll_loss" if plain => x.nll_loss(target),
        "nll_loss" => {
            let ignore_index = args.get("ignore_index").unwrap_or(NllOptions::default().ignore_index);
            x.nll_loss_with(target, &NllOptions { weight, ignore_index, reduction })
        }
        "mse_loss" if plain => x.mse_loss(target),
        "mse_loss" => x.mse_loss_with(target, reduction),
        "l1_loss" if plain => x.l1_loss(target),
        "l1_loss" => x.l1_loss_with(target, reduction),
        "smooth_l1_loss" if plain => x.smooth_l1_loss(target),
        "smooth_l1_loss" => x.smooth_l1_loss_with(target, args.number("beta"), reduction),
        "binary_cross_entropy_with_logits" if plain => x.binary_cross_entropy_with_logits(target),
        "binary_cross_entropy_with_logits" => {
            let pos_weight = t.get("pos_weight").cloned();
            x.binary_cross_entropy_with_logits_with(target, &BceOptions { weight, pos_weight, reduction })
        }
        "ctc_loss" => x.log_softmax(-1).and_then(|x| ctc_loss(args, &x, t, reduction)),
        "ctc_loss_alone" => ctc_loss(args, x, t, reduction),
        _ => return None,
    })
}

fn ctc_loss(args: &Args, x: &Tensor, t: &Tensors, reduction: Reduction) -> Result<Tensor> {
    let [target, input_lengths, target_lengths] = ["target", "input_lengths", "target_lengths"].map(|name| &t[name]);
    if args.is_empty() {
        return x.ctc_loss(target, input_lengths, target_lengths);
    }
    let (blank, zero_infinity) = (args.get("blank").unwrap_or(0), args.get("zero_infinity").unwrap_or(false));
    x.ctc_loss_with(target, input_lengths, target_lengths, &CtcOptions { blank, reduction, zero_infinity })
}
