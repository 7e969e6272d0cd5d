//! Learned group convolution (Huang, Liu, van der Maaten & Weinberger, *CondenseNet*, 2017, §3).
//!
//! A grouped 1×1 convolution is fast, but with groups of neighbouring channels each group depends
//! on few of the inputs. Here each group of outputs learns which inputs it needs: training starts
//! with all of them, and drops those with the smallest weights in stages, under a group-lasso
//! penalty that shrinks all of a group's weights for an input together. The result is a grouped
//! convolution after an index layer that selects each group's inputs.

use crate::error::{Error, Result};
use crate::kernels::runtime::arrays::sort_by;
use crate::nn::{Activation, BatchNorm2d, Buffer, Conv2d, Dropout, Module, Visitor, block, bn_act};
use crate::nn::{Copier, Parts, PartsMut};
use crate::tensor::{DType, Tensor};
use crate::visit_fields;

const OP: &str = "learned_group_conv";

fn indices(positions: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(positions.iter().map(|&i| i as i64).collect(), [positions.len()])
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.to_vec()
}

/// Sets a buffer and keeps its dtype.
fn assign(buffer: &Buffer, values: Vec<f64>) -> Result<()> {
    buffer.set(&Tensor::from_vec(values, buffer.shape())?.to_dtype(buffer.tensor().dtype())?)
}

/// Normalisation, ReLU, and a 1×1 convolution that learns which inputs its groups of outputs use.
/// The outputs of a group are `groups` channels apart.
///
/// It passes through `condense_factor` stages. In each but the first, every group drops another `1
/// / condense_factor` of the inputs by masking their weights, until `1 / condense_factor` of them
/// are left. Buffers are named as in the authors' implementation.
///
/// # Shape
/// `[N, inputs, H, W]` to `[N, outputs, H, W]`.
pub struct LearnedGroupConv {
    /// The number of inputs that each group has dropped, `[1]`.
    pub count: Buffer,
    /// The stage, from 0, `[1]`.
    pub stage: Buffer,
    /// 1 for weights that are used, 0 for others; has the weight's shape.
    pub mask: Buffer,
    /// Before `conv`.
    pub norm: BatchNorm2d,
    /// After the ReLU, if requested.
    pub dropout: Option<Dropout>,
    /// 1×1, without bias and groups; the mask implements the groups.
    pub conv: Conv2d,
    channels: [usize; 2],
    groups: usize,
    condense_factor: usize,
}

impl LearnedGroupConv {
    /// Creates a layer from `inputs` to `outputs` channels. When the groups do not divide both, or
    /// the factor does not divide the inputs, [`forward`](Module::forward) returns an error.
    pub fn new(inputs: usize, outputs: usize, groups: usize, condense_factor: usize) -> LearnedGroupConv {
        let conv = Conv2d::new(inputs, outputs, 1).bias(false);
        LearnedGroupConv {
            count: Buffer::new(Tensor::zeros([1])),
            stage: Buffer::new(Tensor::zeros([1])),
            mask: Buffer::new(Tensor::ones(conv.weight.shape())),
            norm: BatchNorm2d::new(inputs),
            dropout: None,
            conv,
            channels: [inputs, outputs],
            groups,
            condense_factor,
        }
    }

    /// Sets the probability of dropout before the convolution; 0 removes it.
    pub fn dropout(mut self, p: f64) -> LearnedGroupConv {
        self.dropout = (p != 0.0).then(|| Dropout::new(p));
        self
    }

    fn check(&self) -> Result<()> {
        let ([inputs, outputs], groups, factor) = (self.channels, self.groups, self.condense_factor);
        if groups == 0 || factor == 0 || inputs % groups != 0 || outputs % groups != 0 || inputs % factor != 0 {
            let channels = format!("{inputs} input and {outputs} output channels");
            return Err(Error::argument(
                OP,
                format!("{channels} do not divide into {groups} groups and by the condensation factor {factor}"),
            ));
        }
        Ok(())
    }

    /// Returns the current stage of condensation, from 0 to `condense_factor - 1`.
    ///
    /// # Errors
    /// [`Error::DType`] when the buffer was set to a value of an unsupported dtype.
    pub fn current_stage(&self) -> Result<usize> {
        // The value may come from a file, so it can be any number.
        let stage = values(&self.stage.tensor())?.first().copied().unwrap_or(0.0);
        Ok((stage as usize).min(self.condense_factor.saturating_sub(1)))
    }

    /// Advances to the stage for this fraction of the training: condensation takes the first half,
    /// in stages of equal length. The stage never decreases.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `progress` is between 0 and 1, or when channels, groups and
    /// factor do not fit.
    pub fn set_progress(&self, progress: f64) -> Result<()> {
        self.check()?;
        if !(0.0..=1.0).contains(&progress) {
            return Err(Error::argument(OP, format!("expected a progress between 0 and 1, got {progress}")));
        }
        let last = self.condense_factor - 1;
        let stage = ((2.0 * progress * last as f64) as usize).min(last);
        for next in self.current_stage()? + 1..=stage {
            self.drop_inputs()?;
            assign(&self.stage, vec![next as f64])?;
            assign(&self.count, vec![(next * (self.channels[0] / self.condense_factor)) as f64])?;
        }
        Ok(())
    }

    /// Drops `1 / condense_factor` of the inputs in each group: of those it still has, the ones
    /// with the smallest sum of absolute weights.
    fn drop_inputs(&self) -> Result<()> {
        let [inputs, outputs] = self.channels;
        let (weight, mut mask) = (values(&self.conv.weight.try_tensor()?)?, values(&self.mask.tensor())?);
        for group in 0..self.groups {
            let rows = || (group..outputs).step_by(self.groups);
            let importance = |input: usize| rows().map(|row| weight[row * inputs + input].abs()).sum::<f64>();
            let mut kept: Vec<(f64, usize)> = used(&mask, inputs, group).map(|input| (importance(input), input)).collect();
            sort_by(&mut kept, |a, b| a.0.total_cmp(&b.0));
            for (_, input) in kept.into_iter().take(inputs / self.condense_factor) {
                rows().for_each(|row| mask[row * inputs + input] = 0.0);
            }
        }
        assign(&self.mask, mask)
    }

    /// Returns the weight with unused elements set to zero.
    fn masked_weight(&self) -> Result<Tensor> {
        self.conv.weight.try_tensor()?.mul(&self.mask.tensor())
    }

    /// Computes the group-lasso penalty: the sum, over groups and inputs, of the norm of a group's
    /// weights for an input. 0 in the last stage, where no inputs are dropped any more. The authors
    /// add it to the loss with a factor of 1e-5 (ImageNet).
    ///
    /// # Errors
    /// [`Error::Argument`] when the groups do not divide the channels, or the factor does not
    /// divide the inputs.
    pub fn lasso(&self) -> Result<Tensor> {
        self.check()?;
        let [inputs, outputs] = self.channels;
        let weight = self.masked_weight()?;
        if self.current_stage()? + 1 >= self.condense_factor {
            return Ok(Tensor::full([], 0.0, weight.dtype()));
        }
        let squares = weight.square()?.reshape([outputs / self.groups, self.groups, inputs])?.sum(0)?;
        // Keeps the squares away from 0, where the square root has no finite slope.
        squares.clamp(1e-6, f64::INFINITY)?.sqrt()?.sum(..)
    }

    /// Returns the equivalent plain grouped convolution, with the same results up to rounding,
    /// except that it has no dropout.
    ///
    /// # Errors
    /// [`Error::Argument`] before the last stage, or when the groups do not divide the channels or
    /// the factor the inputs.
    pub fn condensed(&self) -> Result<CondensedConv> {
        self.check()?;
        let ([inputs, outputs], groups) = (self.channels, self.groups);
        let (width, rows) = (inputs / self.condense_factor, outputs / groups);
        let (weight, mask) = (values(&self.masked_weight()?)?, values(&self.mask.tensor())?);
        let (mut index, mut condensed) = (vec![], vec![]);
        for group in 0..groups {
            let kept: Vec<usize> = used(&mask, inputs, group).collect();
            if kept.len() != width {
                let message =
                    format!("group {group} uses {} of {inputs} inputs, in the last stage of condensation it would {width}", kept.len());
                return Err(Error::argument(OP, message));
            }
            for row in 0..rows {
                let of_row = (group + row * groups) * inputs;
                if (0..inputs).any(|input| mask[of_row + input] != mask[group * inputs + input]) {
                    return Err(Error::argument(OP, format!("the outputs of group {group} do not have one mask")));
                }
                condensed.extend(kept.iter().map(|&input| weight[of_row + input]));
            }
            index.extend(kept);
        }
        let to = CondensedConv::new(inputs, outputs, groups, self.condense_factor);
        let dtype = self.conv.weight.dtype();
        to.conv.weight.set(&Tensor::from_vec(condensed, [outputs, width, 1, 1])?.to_dtype(dtype)?)?;
        let index = indices(&index)?;
        to.index.set(&index)?;
        for ((_, from), (_, to)) in self.norm.named_parameters().iter().zip(to.norm.named_parameters()) {
            to.set(&from.tensor().detach().index_select(0, &index)?)?;
        }
        for ((_, from), (_, to)) in self.norm.named_buffers().iter().zip(to.norm.named_buffers()) {
            let from = from.tensor();
            to.set(&if from.ndim() == 0 { from } else { from.index_select(0, &index)? })?;
        }
        if !self.norm.is_training() {
            to.eval();
        }
        Ok(to)
    }
}

/// Returns the inputs that a group uses: those of its first output.
fn used(mask: &[f64], inputs: usize, group: usize) -> impl Iterator<Item = usize> + '_ {
    mask[group * inputs..][..inputs].iter().enumerate().filter(|(_, kept)| **kept != 0.0).map(|(input, _)| input)
}

impl Module for LearnedGroupConv {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            self.check()?;
            let y = self.dropout.forward(&bn_act(&self.norm, x, Activation::Relu)?)?;
            self.conv.forward_with_weight(&y, &self.masked_weight()?)
        })
    }

    visit_fields!(count => "_count", stage => "_stage", mask => "_mask", norm, dropout, conv, skip(channels, groups, condense_factor));
}

/// The result of [`LearnedGroupConv::condensed`]: an index layer that selects each group's inputs,
/// normalisation, ReLU, a grouped 1×1 convolution, and a shuffle that restores the order of the
/// outputs.
///
/// # Shape
/// `[N, inputs, H, W]` to `[N, outputs, H, W]`.
pub struct CondensedConv {
    /// The inputs of the first group, then those of the second, …: `i64`, `[inputs · groups /
    /// condense_factor]`.
    pub index: Buffer,
    /// Before `conv`, for the channels that the index selects.
    pub norm: BatchNorm2d,
    /// 1×1, grouped.
    pub conv: Conv2d,
    groups: usize,
}

impl CondensedConv {
    /// Creates a layer with new weights and the first inputs in order, as a target for saved
    /// weights. When the groups do not divide the channels, or the factor does not divide the
    /// inputs, [`forward`](Module::forward) returns an error.
    pub fn new(inputs: usize, outputs: usize, groups: usize, condense_factor: usize) -> CondensedConv {
        let width = inputs.checked_div(condense_factor).unwrap_or(0).saturating_mul(groups);
        let conv = Conv2d::new(width, outputs, 1).groups(groups).bias(false);
        // A convolution that memory cannot hold has no weight; `forward` reports it.
        let held = if conv.weight.shape().len() == 4 { width } else { 0 };
        let index = Tensor::from_vec((0..held).map(|i| (i % inputs.max(1)) as i64).collect(), [held]);
        CondensedConv { index: Buffer::new(index.expect("as many as the shape has")), norm: BatchNorm2d::new(width), conv, groups }
    }
}

impl Module for CondensedConv {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let y = bn_act(&self.norm, &x.index_select(1, &self.index.tensor())?, Activation::Relu)?;
            self.conv.forward(&y)?.channel_shuffle(self.groups)
        })
    }

    visit_fields!(index, norm, conv, skip groups);
}

/// A learned group convolution, during training or after conversion.
pub enum GroupConv {
    /// During training.
    Learned(LearnedGroupConv),
    /// After conversion, for inference.
    Condensed(CondensedConv),
}

impl GroupConv {
    /// Returns the convolution if it is still learned.
    pub fn learned(&self) -> Option<&LearnedGroupConv> {
        match self {
            GroupConv::Learned(conv) => Some(conv),
            GroupConv::Condensed(_) => None,
        }
    }

    fn layer(&self) -> &dyn Module {
        match self {
            GroupConv::Learned(conv) => conv,
            GroupConv::Condensed(conv) => conv,
        }
    }
}

impl Module for GroupConv {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.layer().forward(x)
    }

    fn visit(&self, v: &mut Visitor<'_>) {
        self.layer().visit(v);
    }

    fn parts<'m>(&'m self, parts: &mut Parts<'m>) {
        self.layer().parts(parts);
    }

    fn parts_mut<'m>(&'m mut self, parts: &mut PartsMut<'m>) {
        match self {
            GroupConv::Learned(conv) => conv.parts_mut(parts),
            GroupConv::Condensed(conv) => conv.parts_mut(parts),
        }
    }

    fn copy_with(&self, copier: &mut Copier) -> Result<Box<dyn Module>> {
        Ok(Box::new(match self {
            GroupConv::Learned(conv) => GroupConv::Learned(copier.field(conv)?),
            GroupConv::Condensed(conv) => GroupConv::Condensed(copier.field(conv)?),
        }))
    }

    fn inner(&self) -> Option<&dyn Module> {
        Some(self.layer())
    }

    fn type_name(&self) -> &str {
        self.layer().type_name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a layer with weights, biases and running estimates that are all different.
    fn layer(inputs: usize, outputs: usize, groups: usize, factor: usize) -> LearnedGroupConv {
        crate::manual_seed(1);
        let layer = LearnedGroupConv::new(inputs, outputs, groups, factor);
        for tensor in [layer.norm.weight.as_ref(), layer.norm.bias.as_ref()].into_iter().flatten() {
            tensor.set(&Tensor::randn(tensor.shape())).unwrap();
        }
        let [mean, var] = [&layer.norm.running_mean, &layer.norm.running_var].map(|buffer| buffer.as_ref().unwrap());
        mean.set(&Tensor::randn([inputs])).unwrap();
        var.set(&Tensor::rand([inputs]).add_scalar(0.5)).unwrap();
        layer
    }

    fn mask(layer: &LearnedGroupConv) -> Vec<f32> {
        layer.mask.tensor().to_vec().unwrap()
    }

    #[test]
    fn each_stage_drops_the_inputs_with_the_smallest_weights_of_each_group() {
        let layer = LearnedGroupConv::new(4, 4, 2, 4);
        // Groups are rows 0 and 2, rows 1 and 3. Sums of magnitudes: 5 4 3 3, and 1 5 4 8.
        let weight = [[1., -4., 1., 2.], [0., 2., 3., 4.], [-4., 0., 2., 1.], [1., 3., -1., 4.]].concat();
        layer.conv.weight.set(&Tensor::from_vec(weight.iter().map(|&w: &f64| w as f32).collect(), [4, 4, 1, 1]).unwrap()).unwrap();
        let kept = [
            (0.0, [[1, 1, 1, 1], [1, 1, 1, 1]]),
            (0.16, [[1, 1, 1, 1], [1, 1, 1, 1]]),
            (0.17, [[1, 1, 0, 1], [0, 1, 1, 1]]),
            (0.34, [[1, 1, 0, 0], [0, 1, 0, 1]]),
            // The stage never decreases.
            (0.1, [[1, 1, 0, 0], [0, 1, 0, 1]]),
            (0.5, [[1, 0, 0, 0], [0, 0, 0, 1]]),
            (1.0, [[1, 0, 0, 0], [0, 0, 0, 1]]),
        ];
        for (progress, [even, odd]) in kept {
            layer.set_progress(progress).unwrap();
            assert_eq!(mask(&layer), [even, odd, even, odd].concat().iter().map(|&k| k as f32).collect::<Vec<_>>(), "{progress}");
        }
        assert_eq!(layer.count.tensor().to_vec::<f32>().unwrap(), [3.0]);
        assert_eq!(layer.current_stage().unwrap(), 3);

        // Two stages at once give the same as one after the other.
        let all_at_once = LearnedGroupConv::new(4, 4, 2, 4);
        all_at_once.conv.weight.set(&layer.conv.weight.tensor()).unwrap();
        all_at_once.set_progress(0.7).unwrap();
        assert_eq!(mask(&all_at_once), mask(&layer));
    }

    #[test]
    fn penalty_sums_norms_over_groups_and_inputs_and_has_gradients_for_unmasked_weights_only() {
        let layer = LearnedGroupConv::new(2, 4, 2, 2);
        let weight = vec![3f32, 0.5, 5.0, 0.1, 4.0, 1.2, 12.0, 0.0];
        layer.conv.weight.set(&Tensor::from_vec(weight, [4, 2, 1, 1]).unwrap()).unwrap();
        let lasso = layer.lasso().unwrap();
        // Rows 0 and 2, rows 1 and 3: (3, 4), (0.5, 1.2), (5, 12), (0.1, 0).
        approx::assert_abs_diff_eq!(lasso.item::<f32>().unwrap(), 5.0 + 1.3 + 13.0 + 0.1, epsilon = 1e-5);
        let gradient = lasso.backward().unwrap().remove(&layer.conv.weight.tensor()).unwrap().to_vec::<f32>().unwrap();
        approx::assert_abs_diff_eq!([gradient[0], gradient[6]][..], [3.0 / 5.0, 12.0 / 13.0][..], epsilon = 1e-6);
        layer.set_progress(1.0).unwrap();
        assert_eq!(layer.lasso().unwrap().item::<f32>().unwrap(), 0.0);
    }

    #[test]
    fn condensed_convolution_computes_the_same_in_both_modes_with_any_groups_and_factor() {
        for (groups, factor) in [(4, 4), (2, 4), (4, 2), (1, 3), (3, 1)] {
            let layer = layer(12, 24, groups, factor);
            layer.to_dtype(DType::F64).unwrap();
            if factor > 1 {
                let error = layer.condensed().err().unwrap().to_string();
                assert!(error.contains("group 0 uses 12 of 12 inputs"), "{error}");
            }
            layer.set_progress(0.5).unwrap();
            let condensed = layer.condensed().unwrap();
            assert_eq!(condensed.index.shape(), [12 * groups / factor]);
            assert_eq!(condensed.conv.weight.shape(), [24, 12 / factor, 1, 1]);
            let x = Tensor::randn([3, 12, 5, 5]).to_dtype(DType::F64).unwrap();
            let same = |condensed: &CondensedConv| {
                let [a, b] = [layer.forward(&x), condensed.forward(&x)].map(|y| y.unwrap().to_vec::<f64>().unwrap());
                let difference = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                // Sums of twelve numbers of about 1, in another order.
                assert!(difference < 1e-13 && a.len() == b.len(), "{groups} groups, factor {factor}: {difference}");
            };
            same(&condensed);
            layer.eval();
            let condensed = layer.condensed().unwrap();
            assert!(!condensed.is_training());
            same(&condensed);
        }
    }

    #[test]
    fn misfit_channels_and_invalid_progress_are_refused() {
        let x = Tensor::zeros([1, 6, 2, 2]);
        for (inputs, outputs, groups, factor) in [(6, 8, 4, 2), (6, 9, 2, 2), (6, 8, 2, 4), (6, 8, 0, 2), (6, 8, 2, 0)] {
            let layer = LearnedGroupConv::new(inputs, outputs, groups, factor);
            let message = layer.forward(&x).unwrap_err().to_string();
            assert!(message.contains(&format!("into {groups} groups and by the condensation factor {factor}")), "{message}");
            assert!(layer.set_progress(0.5).is_err() && layer.lasso().is_err() && layer.condensed().is_err());
        }
        assert!(CondensedConv::new(6, 8, 0, 2).forward(&x).is_err());
        let layer = LearnedGroupConv::new(6, 8, 2, 2);
        for progress in [-0.1, 1.1, f64::NAN] {
            let error = layer.set_progress(progress).unwrap_err().to_string();
            assert!(error.contains("between 0 and 1"), "{error}");
        }
        // A mask and a stage with invalid values from a file.
        layer.stage.set(&Tensor::full([1], 1e30, DType::F32)).unwrap();
        assert_eq!(layer.current_stage().unwrap(), 1);
        let mut odd = vec![1.0; 48];
        for group in 0..2 {
            odd[group * 6..][..3].fill(0.0);
        }
        assign(&layer.mask, odd).unwrap();
        let error = layer.condensed().err().unwrap().to_string();
        assert!(error.contains("do not have one mask"), "{error}");
        let condensed = CondensedConv::new(6, 8, 2, 2);
        condensed.index.set(&Tensor::from_vec(vec![0i64, 1, 2, 3, 4, 99], [6]).unwrap()).unwrap();
        let error = condensed.forward(&x).unwrap_err().to_string();
        assert!(error.contains("99"), "{error}");
    }
}
