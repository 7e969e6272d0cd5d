//! The paths of a network's modules.

use std::collections::HashMap;

use crate::error::{Error, Result, short};
use crate::nn::{Item, Module, Visitor, near_names};

/// The modules of a network, by path.
pub(super) struct Network {
    /// The path of the network itself, when it is a part of a larger one.
    place: String,
    /// Paths of blocks and layers, in the order of definition, without the network itself.
    paths: Vec<String>,
    /// Descriptions of leaf layers.
    layers: HashMap<String, String>,
}

impl Network {
    /// Lists the modules, and sets the paths of the layers.
    pub(super) fn of<M: Module + ?Sized>(model: &M) -> Network {
        let (mut paths, mut layers) = (vec![], HashMap::new());
        Visitor::walk(model, &mut |path, item| match item {
            Item::Enter { .. } if !path.is_empty() => paths.push(path.to_string()),
            Item::Layer(layer) => {
                layers.insert(path.to_string(), layer.describe());
            }
            _ => {}
        });
        Network { place: Visitor::find_path(model.as_module()).unwrap_or_default(), paths, layers }
    }

    /// Returns the path from this network for a path from the root; `None` outside the network.
    pub(super) fn relative<'p>(&self, path: &'p str) -> Option<&'p str> {
        match path.strip_prefix(self.place.as_str())? {
            rest if self.place.is_empty() || rest.is_empty() => Some(rest),
            rest => rest.strip_prefix('.'),
        }
    }

    /// Fails unless there is a module at this path.
    pub(super) fn check(&self, op: &'static str, path: &str) -> Result<()> {
        if path.is_empty() {
            let message = "the path \"\" is the network itself, whose output is what its forward returns; name a layer or block";
            return Err(Error::argument(op, message.to_string()));
        }
        if self.paths.iter().any(|known| known == path) {
            return Ok(());
        }
        Err(Error::argument(op, format!("there is no module at path \"{}\"; {}", short(path), near_names(path, self.paths.clone()))))
    }

    /// Returns the paths of the leaf layers, in the order of definition.
    pub(super) fn layers(&self) -> Vec<String> {
        self.paths.iter().filter(|path| self.layers.contains_key(*path)).cloned().collect()
    }

    /// Returns the description of the leaf layer at this path, such as `Conv2d 64→64, k3`; `None`
    /// for a block.
    pub(super) fn layer(&self, path: &str) -> Option<&str> {
        self.layers.get(path).map(String::as_str)
    }
}
