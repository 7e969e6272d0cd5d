//! Source rows, spread out for vectors that span groups: one plane for each channel of a group.

use super::tile::TILE;
use super::window_map::WindowMap;
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::simd::{Real, array};

/// The last few source rows, padded, in the layout that one vector of target channels reads:
/// `[row][column][plane][lane]`, where each lane of plane `j` contains channel `j` of the lane's
/// group. A row is spread out once, and read by as many target rows as the kernel has rows.
pub(crate) struct Ring<T> {
    data: AlignedVec<T>,
    /// (Image, row) of the source in each slot.
    held: Vec<Option<(usize, usize)>>,
    /// The source column of column 0.
    from: isize,
    width: usize,
    pitch: usize,
    /// Source channels of each lane of plane 0.
    channels: Vec<usize>,
}

impl<T: Real> Ring<T> {
    pub(crate) fn new(map: &WindowMap) -> Ring<T> {
        let range = map.columns.source_range(TILE);
        let (width, pitch, places) = (range.clone().count(), map.group[0] * map.lanes, map.rows.span());
        let data = AlignedVec::zeroed(places * width * pitch);
        Ring { data, held: vec![None; places], from: range.start, width, pitch, channels: vec![] }
    }

    /// Discards all rows, and selects the vector of target channels that starts at `start`.
    pub(crate) fn select(&mut self, map: &WindowMap, start: usize) {
        self.held.fill(None);
        self.channels.clear();
        self.channels.extend((start..start + map.used()).map(|channel| channel / map.group[1] * map.group[0]));
    }

    /// Returns the source column of column 0, and the number of elements from one column to the
    /// next.
    pub(crate) fn columns(&self) -> (isize, usize) {
        (self.from, self.pitch)
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn elements(&self) -> &[T] {
        &self.data
    }

    /// Returns the offset of a source row, once it is spread out.
    pub(crate) fn row(&self, row: usize) -> usize {
        row % self.held.len() * self.width * self.pitch
    }

    /// Spreads out a row of a source image, unless the ring already contains it.
    #[inline(always)]
    pub(crate) fn spread(&mut self, map: &WindowMap, image: &[T], number: usize, row: usize) {
        let place = row % self.held.len();
        if self.held[place].replace((number, row)) == Some((number, row)) {
            return;
        }
        let first = (-self.from).max(0) as usize;
        let columns = map.columns.source.min(self.width.saturating_sub(first));
        let from = &image[row * map.row()[0]..][..columns * map.channels[0]];
        let to = &mut self.data[place * self.width * self.pitch..][first * self.pitch..][..columns * self.pitch];
        spread_pixels(from, map, &self.channels, to);
    }
}

/// Spreads out pixels: `to: [pixel][plane][lane]`, `from: [pixel][channel]`.
#[inline(always)]
fn spread_pixels<T: Real>(from: &[T], map: &WindowMap, channels: &[usize], to: &mut [T]) {
    let (lanes, [planes, group]) = (map.lanes, map.group);
    let (pitch, start) = (map.channels[0], channels[0]);
    match (lanes, planes, group) {
        _ if channels.len() < lanes => {}
        (16, 2, 2) => return spread_groups::<T, 16, 2>(from, pitch, start, to),
        (16, 4, 4) => return spread_groups::<T, 16, 4>(from, pitch, start, to),
        (16, 8, 8) => return spread_groups::<T, 16, 8>(from, pitch, start, to),
        (8, 2, 2) => return spread_groups::<T, 8, 2>(from, pitch, start, to),
        (8, 4, 4) => return spread_groups::<T, 8, 4>(from, pitch, start, to),
        _ => {}
    }
    for (from, to) in from.chunks_exact(pitch).zip(to.chunks_exact_mut(planes * lanes)) {
        for (plane, to) in to.chunks_exact_mut(lanes).enumerate() {
            to.iter_mut().zip(channels).for_each(|(to, &channel)| *to = from[channel + plane]);
        }
    }
}

/// Spreads out pixels of whole groups of `G` channels in both source and target. The compiler turns
/// each pixel into a few permutations within a register.
#[inline(always)]
fn spread_groups<T: Real, const LANES: usize, const G: usize>(from: &[T], pitch: usize, start: usize, to: &mut [T]) {
    let (to, []) = to.as_chunks_mut::<LANES>() else { unreachable!("planes have all lanes") };
    // A plain loop: the internal loop of an iterator may be compiled as a separate function,
    // without the instruction set's permutations.
    for (pixel, to) in from.chunks_exact(pitch).zip(to.chunks_exact_mut(G)) {
        let from: [T; LANES] = *pixel[start..].first_chunk().expect("a vector lies within the pixel");
        for (plane, to) in to.iter_mut().enumerate() {
            *to = array(|lane| from[lane / G * G + plane]);
        }
    }
}
