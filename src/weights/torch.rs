//! Files of `torch.save`: a zip archive (since PyTorch 1.6) or a stream of pickles followed by the
//! storages (before).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::alloc_limit::{AllocLimit, Parsed, quoted};
use super::elements::{self, StoredDType, View};
use super::pickle::{self, Object, Pickle, Storage, TensorInfo, Value};
use super::zip::Archive;
use crate::nn::StateDict;
use crate::tensor::Tensor;

/// The end of the first pickle of legacy files, in every protocol: the number
/// 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// The keys under which training scripts save the network; the first with content counts.
const WRAPPERS: &[&str] =
    &["state_dict", "model_state_dict", "model", "net", "network", "weights", "model_ema", "ema", "params", "state_dict_ema"];

/// The name that `DataParallel`, `DistributedDataParallel` and `AveragedModel` give the network.
const DATA_PARALLEL: &str = "module.";

/// The greatest depth of nested dicts.
const DEEPEST: usize = 32;

/// The cost of visiting any entry: time, counted as memory.
const PER_VISIT: usize = 16;

/// The cost of a tensor or dict in a dict besides its name.
const PER_ENTRY: usize = 256;

/// The prefix of a PyTorch archive's entries: `resnet18/` where there is a `resnet18/data.pkl`.
pub(super) fn archive_prefix<'a>(archive: &Archive<'a>) -> Option<&'a str> {
    archive.names().find_map(|name| name.strip_suffix("data.pkl").filter(|prefix| prefix.is_empty() || prefix.ends_with('/')))
}

/// Reads a zip archive.
pub(super) fn load_archive(archive: &Archive<'_>, prefix: &str, budget: &mut AllocLimit) -> Parsed<StateDict> {
    let order = format!("{prefix}byteorder");
    if archive.contains(&order) {
        match &*archive.read(&order, budget)? {
            b"little" => {}
            b"big" => return Err(big_endian()),
            _ => return Err("its byte order is neither little nor big".to_string()),
        }
    }
    if archive.contains(&format!("{prefix}constants.pkl")) {
        return Err("a TorchScript archive, which is a program; save `model.state_dict()` with torch.save or safetensors".to_string());
    }
    let program = archive.read(&format!("{prefix}data.pkl"), budget)?;
    let pickle = pickle::read(&mut &*program, budget)?;
    collect(&pickle, &mut Archived { archive, prefix, read: HashMap::new() }, budget)
}

/// Reads a file from before PyTorch 1.6.
pub(super) fn load_legacy(bytes: &[u8], budget: &mut AllocLimit) -> Parsed<StateDict> {
    let mut rest = bytes;
    // Read also when it is another pickle, to name the unknown objects in it.
    let first = pickle::read(&mut rest, budget)?;
    if !bytes[..bytes.len() - rest.len()].ends_with(LEGACY_MAGIC) {
        let made_of = made_of(&first);
        return Err(format!("a pickle that torch.save did not write; save `model.state_dict()` with torch.save or safetensors{made_of}"));
    }
    let version = pickle::read(&mut rest, budget)?.root;
    if version != Value::Int(1001) {
        return Err(format!("a legacy PyTorch file of version {version:?}; 1001 is read"));
    }
    let system = pickle::read(&mut rest, budget)?;
    match system.dict(system.root).and_then(|entries| get(entries, "little_endian")) {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Err(big_endian()),
        _ => return Err("a legacy PyTorch file that does not say its byte order".to_string()),
    }
    let pickle = pickle::read(&mut rest, budget)?;
    let keys = pickle::read(&mut rest, budget)?;
    let keys = keys.sequence(keys.root).ok_or("a legacy PyTorch file without a list of storages")?;
    let sizes: HashMap<&str, usize> =
        pickle.storages().map(|storage| (storage.key, storage.kind.map_or(1, elements::named_size))).collect();
    let mut storages = Streamed(HashMap::new());
    for &key in keys {
        let Value::Text(key) = key else { return Err("a legacy PyTorch file with a storage that has no name".to_string()) };
        let size = sizes.get(key).ok_or_else(|| format!("storage {} is of unknown type", quoted(key)))?;
        let truncated = || format!("storage {} is truncated", quoted(key));
        let (count, after) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let length = usize::try_from(u64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(*size)).ok_or_else(truncated)?;
        let (data, after) = after.split_at_checked(length).ok_or_else(truncated)?;
        storages.0.insert(key, data);
        rest = after;
    }
    collect(&pickle, &mut storages, budget)
}

fn big_endian() -> String {
    "written on a big-endian machine, which is not supported; load it with PyTorch and save it on a little-endian one".to_string()
}

/// The place of the elements.
trait Storages {
    fn bytes(&mut self, key: &str, budget: &mut AllocLimit) -> Parsed<&[u8]>;
}

struct Archived<'z, 'a> {
    archive: &'z Archive<'a>,
    prefix: &'z str,
    read: HashMap<String, Cow<'a, [u8]>>,
}

impl Storages for Archived<'_, '_> {
    fn bytes(&mut self, key: &str, budget: &mut AllocLimit) -> Parsed<&[u8]> {
        if !self.read.contains_key(key) {
            let content = self.archive.read(&format!("{}data/{key}", self.prefix), budget)?;
            self.read.insert(key.to_string(), content);
        }
        Ok(&self.read[key])
    }
}

struct Streamed<'a>(HashMap<&'a str, &'a [u8]>);

impl Storages for Streamed<'_> {
    fn bytes(&mut self, key: &str, _: &mut AllocLimit) -> Parsed<&[u8]> {
        self.0.get(key).copied().ok_or_else(|| format!("the file has no storage {}", quoted(key)))
    }
}

/// Returns the last value of this key, as a Python dict does.
fn get<'a>(entries: &[(Value<'a>, Value<'a>)], key: &str) -> Option<Value<'a>> {
    entries.iter().rev().find(|(other, _)| *other == Value::Text(key)).map(|(_, value)| *value)
}

/// A dict or module, whose entries have names.
enum Container<'c, 'a> {
    Dict(&'c [(Value<'a>, Value<'a>)]),
    /// The parameters, buffers and children of a whole `nn.Module`, and the names of buffers that
    /// its state dict leaves out.
    Module([&'c [(Value<'a>, Value<'a>)]; 3], Option<&'c [Value<'a>]>),
}

fn container<'c, 'a>(pickle: &'c Pickle<'a>, value: Value<'a>, budget: &mut AllocLimit) -> Parsed<Option<Container<'c, 'a>>> {
    if let Some(entries) = pickle.dict(value) {
        return Ok(Some(Container::Dict(entries)));
    }
    let Some(Object::Instance(instance)) = pickle.object(value) else { return Ok(None) };
    let Some(attributes) = pickle.attributes(instance) else { return Ok(None) };
    budget.take(attributes.len().saturating_mul(PER_VISIT))?;
    let part = |name| get(attributes, name).and_then(|value| pickle.dict(value));
    let (Some(parameters), Some(children)) = (part("_parameters"), part("_modules")) else { return Ok(None) };
    let left_out = get(attributes, "_non_persistent_buffers_set").and_then(|value| pickle.sequence(value));
    Ok(Some(Container::Module([parameters, part("_buffers").unwrap_or_default(), children], left_out)))
}

/// Describes a pickle's unknown names for a message.
fn made_of(pickle: &Pickle<'_>) -> String {
    match &pickle.unknown_names()[..] {
        [] => String::new(),
        names => format!("; it has objects of {}, which are not read", names.join(", ")),
    }
}

/// Returns the tensors of the network in a pickle, by name.
fn collect(pickle: &Pickle<'_>, storages: &mut impl Storages, budget: &mut AllocLimit) -> Parsed<StateDict> {
    let made_of = made_of(pickle);
    let none = |what: &str| format!("{what}; save `model.state_dict()`{made_of}");
    let mut root = container(pickle, pickle.root, budget)?.ok_or_else(|| none("holds no state dict"))?;
    for _ in 0..DEEPEST {
        let Container::Dict(entries) = root else { break };
        budget.take(entries.len().saturating_mul(PER_VISIT * WRAPPERS.len()))?;
        // A flat state dict is not searched for another inside.
        let tensor = |value| matches!(pickle.object(value), Some(Object::Tensor(_) | Object::Unreadable(_)));
        if entries.iter().any(|&(key, value)| matches!(key, Value::Text(key) if key.contains('.')) && tensor(value)) {
            break;
        }
        let (mut full, mut empty) = (None, None);
        for value in WRAPPERS.iter().filter_map(|key| get(entries, key)) {
            match container(pickle, value, budget)? {
                Some(Container::Dict([])) => empty = empty.or(Some(Container::Dict(&[]))),
                Some(inner) => {
                    full = Some(inner);
                    break;
                }
                None => {}
            }
        }
        match full.or(empty) {
            Some(inner) => root = inner,
            None => break,
        }
    }
    let is_empty = matches!(root, Container::Dict([]));
    let mut collector = Collector { pickle, storages, budget, known: HashMap::new(), state: StateDict::new() };
    collector.walk("", root, 0)?;
    let state = collector.state;
    if state.is_empty() && !is_empty && !state.unreadable().any(|(_, _)| true) {
        return Err(none("holds no tensors"));
    }
    Ok(strip(state))
}

/// Removes the prefixes of wrappers from names: `_orig_mod.` of `torch.compile` before those of
/// each compiled module, `module.` of `DataParallel` and `AveragedModel` before all.
///
/// A single number without a wrapper's prefix, such as `AveragedModel`'s `n_averaged`, does not
/// count; `n_averaged` itself is left out.
fn strip(mut state: StateDict) -> StateDict {
    let without_compile = |key: &str| key.split('.').filter(|part| *part != "_orig_mod").collect::<Vec<_>>().join(".");
    // Two names that would become one are not changed.
    let names: HashSet<String> = state.keys().map(without_compile).collect();
    if names.len() == state.len() && !names.contains("") {
        state = state.with_keys(without_compile);
    }
    // More wrappers than any network has.
    for _ in 0..8 {
        let counts = |(key, tensor): &(&str, &Tensor)| key.contains('.') || tensor.numel() > 1;
        let keys: Vec<&str> = state.iter().filter(counts).map(|(key, _)| key).collect();
        if keys.is_empty() || !keys.iter().all(|key| key.starts_with(DATA_PARALLEL)) {
            break;
        }
        let inner = |key: &str| key.strip_prefix(DATA_PARALLEL).unwrap_or(key).to_string();
        if state.keys().any(|key| key.starts_with(DATA_PARALLEL) && state.contains_key(&inner(key))) {
            break;
        }
        state.remove("n_averaged");
        state = state.with_keys(inner);
    }
    state
}

struct Collector<'c, 'a, S> {
    pickle: &'c Pickle<'a>,
    storages: &'c mut S,
    budget: &'c mut AllocLimit,
    /// Tied weights are read once and shared.
    known: HashMap<(&'c str, Option<(usize, usize)>, StoredDType, &'c View), Tensor>,
    state: StateDict,
}

impl<'c, 'a, S: Storages> Collector<'c, 'a, S> {
    fn walk(&mut self, path: &str, container: Container<'c, 'a>, depth: usize) -> Parsed<()> {
        if depth > DEEPEST {
            return Err(format!("its dicts nest deeper than {DEEPEST}"));
        }
        match container {
            Container::Dict(entries) => entries.iter().try_for_each(|&(key, value)| self.entry(path, key, value, depth)),
            Container::Module([parameters, buffers, children], left_out) => {
                let left_out = left_out.unwrap_or_default();
                self.budget.take(left_out.len().saturating_mul(PER_ENTRY))?;
                let left_out: HashSet<&str> =
                    left_out.iter().filter_map(|name| if let Value::Text(name) = name { Some(*name) } else { None }).collect();
                for &(key, value) in parameters.iter().chain(buffers).chain(children) {
                    if !matches!(key, Value::Text(key) if left_out.contains(key)) {
                        self.entry(path, key, value, depth)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn entry(&mut self, path: &str, key: Value<'a>, value: Value<'a>, depth: usize) -> Parsed<()> {
        self.budget.take(PER_VISIT)?;
        let Some(object @ (Object::Tensor(_) | Object::Dict(_) | Object::Unreadable(_) | Object::Instance(_))) = self.pickle.object(value)
        else {
            return Ok(());
        };
        let dot = if path.is_empty() { "" } else { "." };
        self.budget.take(path.len() * 3 + PER_ENTRY)?;
        let name = match key {
            Value::Text(key) => {
                self.budget.take(key.len() * 3)?;
                format!("{path}{dot}{key}")
            }
            Value::Int(key) => format!("{path}{dot}{key}"),
            _ => return Ok(()),
        };
        match object {
            Object::Tensor(info) => {
                let tensor = self.tensor(info).map_err(|message| format!("tensor {}: {message}", quoted(&name)))?;
                self.state.insert(name, tensor);
            }
            Object::Unreadable(reason) => {
                self.budget.take(2 * reason.len())?;
                self.state.insert_unreadable(name, reason.clone());
            }
            _ => {
                if let Some(inner) = container(self.pickle, value, self.budget)? {
                    self.walk(&name, inner, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn tensor(&mut self, info: &'c TensorInfo) -> Parsed<Tensor> {
        let storage: &'c Storage<'a> = self.pickle.storage(info)?;
        let key = (storage.key, storage.window, info.kind, &info.view);
        if let Some(tensor) = self.known.get(&key) {
            return Ok(tensor.clone());
        }
        let size = storage.kind.map_or(1, elements::named_size);
        let bytes = self.storages.bytes(storage.key, self.budget)?;
        if storage.count.checked_mul(size) != Some(bytes.len()) {
            return Err(format!("its storage has {} bytes and should have {} elements of {size}", bytes.len(), storage.count));
        }
        let bytes = match storage.window {
            None => Some(bytes),
            Some((offset, count)) => {
                offset.checked_mul(size).and_then(|start| bytes.get(start..start.checked_add(count.checked_mul(size)?)?))
            }
        };
        let bytes = bytes.ok_or("its part of the storage reaches outside it")?;
        let tensor = elements::tensor(info.kind, &info.view, bytes, self.budget)?;
        self.known.insert(key, tensor.clone());
        Ok(tensor)
    }
}
