//! The training modes of all parts of a network, kept and put back.

use super::Module;
use super::visitor::{Item, Visitor};

/// The training modes of all layers of a network, in visiting order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Modes(Vec<bool>);

impl Modes {
    /// Returns the present modes.
    pub(crate) fn of(module: &dyn Module) -> Modes {
        let mut modes = vec![];
        Visitor::walk(module, &mut |_, item| {
            if let Item::TrainingMode(mode) = item {
                modes.push(mode.is_training());
            }
        });
        Modes(modes)
    }

    /// Returns modes for training: a layer is in training mode unless all parameters of the
    /// innermost module around it that has any are frozen. So a frozen body of a network keeps its
    /// running statistics, and dropout in it rests.
    pub(crate) fn for_training(module: &dyn Module) -> Modes {
        let (mut parameters, mut layers) = (vec![], vec![]);
        Visitor::walk(module, &mut |path, item| match item {
            Item::Parameter(parameter) => parameters.push((path.to_string(), parameter.is_frozen())),
            Item::TrainingMode(_) => layers.push(path.to_string()),
            _ => {}
        });
        let learns = |layer: &String| {
            let mut around = layer.as_str();
            loop {
                let inside = |path: &str| around.is_empty() || path.strip_prefix(around).is_some_and(|rest| rest.starts_with('.'));
                let mut frozen = parameters.iter().filter(|(path, _)| inside(path)).map(|(_, frozen)| *frozen).peekable();
                if frozen.peek().is_some() || around.is_empty() {
                    return frozen.peek().is_none() || frozen.any(|frozen| !frozen);
                }
                around = around.rsplit_once('.').map_or("", |(around, _)| around);
            }
        };
        Modes(layers.iter().map(learns).collect())
    }

    /// Puts the layers of the same network into these modes.
    pub(crate) fn set(&self, module: &dyn Module) {
        let mut modes = self.0.iter();
        Visitor::walk(module, &mut |_, item| {
            if let Item::TrainingMode(mode) = item
                && let Some(&training) = modes.next()
            {
                mode.set_training(training);
            }
        });
    }
}

/// Runs `body`, which may change modes inside `module`, then puts all of them back, after a panic
/// too.
pub(crate) fn keeping_modes<R>(module: &dyn Module, body: impl FnOnce() -> R) -> R {
    struct Restore<'a>(&'a dyn Module, Modes);
    impl Drop for Restore<'_> {
        fn drop(&mut self) {
            self.1.set(self.0);
        }
    }
    let _restore = Restore(module, Modes::of(module));
    body()
}

/// Runs `body` with everything inside `module` in evaluation mode, then puts all modes back.
pub(crate) fn in_evaluation<R>(module: &dyn Module, body: impl FnOnce() -> R) -> R {
    keeping_modes(module, || {
        module.eval();
        body()
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::nn::{BatchNorm2d, Dropout, Linear, ModuleExt, Sequential};

    #[test]
    fn modes_of_each_layer_are_put_back_after_a_panic_too() {
        let model = Sequential::new().push(BatchNorm2d::new(2)).push(Dropout::new(0.5));
        model.get("0").unwrap().eval();
        let before = Modes::of(&model);
        assert_eq!(before, Modes(vec![false, true]));
        assert!(!in_evaluation(&model, || model.is_training()));
        assert_eq!(Modes::of(&model), before);
        let panicking = || {
            keeping_modes(&model, || -> () {
                model.train();
                panic!("on purpose")
            })
        };
        assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
        assert_eq!(Modes::of(&model), before);
    }

    #[test]
    fn frozen_parts_are_not_put_into_training_mode() {
        let part = || Sequential::new().push(BatchNorm2d::new(2)).push(Dropout::new(0.5));
        let head = Sequential::new().push(Dropout::new(0.5)).push(Linear::new(2, 2));
        let model = Sequential::new().push_named("body", part()).push_named("head", head).push(Dropout::new(0.5));
        let modes = || Modes::for_training(&model).0;
        assert_eq!(modes(), [true; 4]);
        model.freeze("body").unwrap();
        assert_eq!(modes(), [false, false, true, true]);
        model.freeze("").unwrap();
        assert_eq!(modes(), [false; 4]);
        assert_eq!(Modes::for_training(&Dropout::new(0.5)).0, [true]);
    }
}
