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
mod tests;
