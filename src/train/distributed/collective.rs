//! Sums, copies and collections over all ranks, made of messages between two.

use std::ops::AddAssign;

use bytemuck::Pod;

use super::transport::{Transport, unfit};
use crate::error::{Error, Result};

/// Replaces each value by the sum of the ranks' values, added as a balanced binary tree over the
/// ranks: the pairs (0, 1), (2, 3), … first. All ranks get the same bits.
///
/// Recursive halving, then doubling (Thakur et al., 2005): each rank sends and receives
/// `2 · (world - 1) / world` times the values. The number of ranks is a power of two.
pub(super) fn sum_by_tree<T: Pod + AddAssign>(transport: &mut dyn Transport, values: &mut [T]) -> Result<()> {
    let (rank, world) = (transport.rank(), transport.world());
    debug_assert!(world.is_power_of_two());
    let mut received = vec![T::zeroed(); values.len().div_ceil(2)];
    // The part of the values that this rank adds up, and the parts that it came from.
    let (mut start, mut end) = (0, values.len());
    let mut outer = Vec::new();
    let mut distance = 1;
    while distance < world {
        let partner = rank ^ distance;
        let middle = start + (end - start) / 2;
        outer.push((start, end, partner));
        let (kept, sent) = if rank & distance == 0 { ((start, middle), (middle, end)) } else { ((middle, end), (start, middle)) };
        (start, end) = kept;
        let others = &mut received[..end - start];
        transport.exchange(partner, bytemuck::cast_slice(&values[sent.0..sent.1]), partner, bytemuck::cast_slice_mut(others))?;
        // The order of two terms does not change the bits of their sum.
        values[start..end].iter_mut().zip(others).for_each(|(value, other)| *value += *other);
        distance *= 2;
    }
    for (start, end, partner) in outer.into_iter().rev() {
        let (low, high) = values[start..end].split_at_mut((end - start) / 2);
        let (own, other) = if rank < partner { (low, high) } else { (high, low) };
        transport.exchange(partner, bytemuck::cast_slice(own), partner, bytemuck::cast_slice_mut(other))?;
    }
    Ok(())
}

/// Replaces each value by the sum of the ranks' values, added in the order of the ranks, for
/// numbers of ranks that are no power of two. Each rank receives all values of all others.
pub(super) fn sum_by_rank<T: Pod + AddAssign>(transport: &mut dyn Transport, values: &mut [T]) -> Result<()> {
    let gathered = gather(transport, bytemuck::cast_slice(values).to_vec())?;
    values.fill(T::zeroed());
    for (rank, bytes) in gathered.iter().enumerate() {
        if bytes.len() != size_of_val(values) {
            return Err(unfit(rank, bytes.len(), size_of_val(values)));
        }
        let others = bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned::<T>);
        values.iter_mut().zip(others).for_each(|(value, other)| *value += other);
    }
    Ok(())
}

/// Returns the bytes of every rank, by rank, on all ranks. They may be of different lengths.
pub(super) fn gather(transport: &mut dyn Transport, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
    let (rank, world) = (transport.rank(), transport.world());
    let mut all = vec![Vec::new(); world];
    all[rank] = own;
    // Around a ring: each rank passes on what it has got last.
    let (next, previous) = ((rank + 1) % world, (rank + world - 1) % world);
    for step in 0..world.saturating_sub(1) {
        let (sent, got) = ((rank + world - step) % world, (rank + world - step - 1) % world);
        let mut length = [0; 8];
        transport.exchange(next, &(all[sent].len() as u64).to_le_bytes(), previous, &mut length)?;
        let mut bytes = room(u64::from_le_bytes(length), previous)?;
        transport.exchange(next, &all[sent], previous, &mut bytes)?;
        all[got] = bytes;
    }
    Ok(all)
}

/// Copies the bytes of rank 0 to all ranks, from each to the next.
pub(super) fn broadcast(transport: &mut dyn Transport, bytes: Vec<u8>) -> Result<Vec<u8>> {
    let (rank, world) = (transport.rank(), transport.world());
    let (next, previous) = ((rank + 1) % world, (rank + world - 1) % world);
    let mut bytes = bytes;
    if rank > 0 {
        let mut length = [0; 8];
        transport.exchange(next, &[], previous, &mut length)?;
        bytes = room(u64::from_le_bytes(length), previous)?;
        transport.exchange(next, &[], previous, &mut bytes)?;
    }
    if rank + 1 < world {
        transport.exchange(next, &(bytes.len() as u64).to_le_bytes(), previous, &mut [])?;
        transport.exchange(next, &bytes, previous, &mut [])?;
    }
    Ok(bytes)
}

/// Returns memory for a message.
fn room(length: u64, from: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = usize::try_from(length).ok().filter(|&length| bytes.try_reserve_exact(length).is_ok());
    let length = length.ok_or_else(|| Error::Training(format!("there is no memory for the message of rank {from}")))?;
    bytes.resize(length, 0);
    Ok(bytes)
}
