//! Reads and checks the list of tensors: their names, shapes, types and offsets.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Seek};

use super::input::Input;
use super::{Fault, types};

/// The maximum number of tensors. DeepSeek-R1, one of the largest models, has 1,025.
const MAX_TENSORS: u64 = 65_536;
/// The maximum length of a tensor's name, in bytes (`GGML_MAX_NAME` without the trailing NUL).
const MAX_NAME: u64 = 63;
/// The maximum number of dimensions of a tensor (`GGML_MAX_DIMS`).
const MAX_DIMENSIONS: u32 = 4;
/// The size of the smallest entry, in bytes. With an empty name and no dimensions, only the length
/// of the name, the number of dimensions, the type and the offset are left.
const MIN_ENTRY: u64 = 24;

/// Totals over all tensors.
pub(super) struct Tensors {
    /// The number of elements.
    pub(super) parameters: u64,
    /// The number of bytes, including padding.
    pub(super) bytes: u64,
    /// The element type that takes up the most bytes.
    pub(super) most: &'static str,
}

/// Reads the list and checks that the tensors are contiguous and inside the file.
pub(super) fn read<R: Read + Seek>(
    input: &mut Input<R>,
    count: u64,
    alignment: u64,
) -> Result<Tensors, Fault> {
    if count == 0 {
        return Err(Fault::NoTensors);
    }
    if count > MAX_TENSORS {
        return Err(Fault::TooLarge {
            what: String::from("the number of tensors"),
            value: count,
            limit: MAX_TENSORS,
        });
    }
    input.has(count, MIN_ENTRY, "the list of tensors")?;
    let mut names = HashSet::new();
    let mut by_type = BTreeMap::<&str, u64>::new();
    let (mut parameters, mut end) = (0_u64, 0_u64);
    for _ in 0..count {
        let name = input.text(MAX_NAME, "the name of a tensor")?;
        let bad = |why: String| Fault::Tensor { name: name.clone(), why };
        if !names.insert(name.clone()) {
            return Err(Fault::Duplicate(format!("the tensor `{name}`")));
        }
        let (row, elements) = shape(input, &bad)?;
        let number = input.u32("the type of a tensor")?;
        let format = types::format(number)
            .ok_or_else(|| bad(format!("has the type {number}, which is unknown or was removed")))?;
        let offset = input.u64("the offset of a tensor")?;
        if row % format.elements != 0 {
            return Err(bad(format!(
                "has rows of {row} elements, which {} packs in blocks of {}",
                format.name, format.elements
            )));
        }
        let too_large = || bad(format!("has {elements} elements, more than can be addressed"));
        let bytes = (elements / format.elements).checked_mul(format.bytes).ok_or_else(too_large)?;
        if offset % alignment != 0 {
            return Err(bad(format!("starts at {offset}, which is not a multiple of {alignment}")));
        }
        let start = end.checked_next_multiple_of(alignment).ok_or_else(too_large)?;
        if offset != start {
            return Err(bad(format!("starts at {offset}, but the tensors before it end at {start}")));
        }
        end = start.checked_add(bytes).ok_or_else(too_large)?;
        parameters = parameters.checked_add(elements).ok_or_else(too_large)?;
        *by_type.entry(format.name).or_default() += bytes;
    }
    let data = input.at().checked_next_multiple_of(alignment);
    let needs = data.and_then(|data| data.checked_add(end)).unwrap_or(u64::MAX);
    if needs > input.length() {
        return Err(Fault::Truncated { have: input.length(), needs });
    }
    let most = by_type.into_iter().max_by_key(|(_, bytes)| *bytes).map_or("", |(name, _)| name);
    Ok(Tensors { parameters, bytes: end, most })
}

/// Reads a shape. Returns the number of elements in a row and in the whole tensor.
fn shape<R: Read + Seek>(input: &mut Input<R>, bad: &impl Fn(String) -> Fault) -> Result<(u64, u64), Fault> {
    let dimensions = input.u32("the shape of a tensor")?;
    if dimensions > MAX_DIMENSIONS {
        return Err(bad(format!("has {dimensions} dimensions, more than {MAX_DIMENSIONS}")));
    }
    let (mut row, mut elements) = (1, 1_u64);
    for n in 0..dimensions {
        let length = input.u64("the shape of a tensor")?;
        if length == 0 {
            return Err(bad(String::from("is empty: a dimension is 0")));
        }
        if n == 0 {
            row = length;
        }
        // llama.cpp counts elements with signed integers.
        elements = elements
            .checked_mul(length)
            .filter(|elements| i64::try_from(*elements).is_ok())
            .ok_or_else(|| bad(String::from("has a shape whose product overflows")))?;
    }
    Ok((row, elements))
}
