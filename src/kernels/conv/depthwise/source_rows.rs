//! The source rows that vectors read: those of the image, or, for vectors that span groups, rows
//! that are spread out, with one plane for each channel of a group.

use std::ops::Range;

use super::tile::{Cells, RowBlock, TILE};
use super::window_map::{Phase, WindowMap};
use crate::kernels::runtime::allocator::AlignedVec;
use crate::kernels::runtime::simd::{Real, array, for_pairs};

/// The source rows of a map.
pub(crate) struct SourceRows<'a, T> {
    map: &'a WindowMap,
    /// The rows that are spread out; `None` if vectors read the image.
    ring: Option<Ring<T>>,
}

impl<'a, T: Real> SourceRows<'a, T> {
    pub(crate) fn new(map: &'a WindowMap) -> SourceRows<'a, T> {
        SourceRows { map, ring: (!map.is_plain()).then(|| Ring::new(map)) }
    }

    /// Returns how many of `vectors` are computed together: the ring contains the rows of one.
    pub(crate) fn vectors_together(&self, vectors: usize) -> usize {
        if self.ring.is_some() { 1 } else { vectors.max(1) }
    }

    /// Selects vectors to compute together; returns their first channels, in the source and in the
    /// target.
    pub(crate) fn select(&mut self, vectors: Range<usize>) -> Vec<[usize; 2]> {
        let starts = self.map.starts[vectors].iter();
        match &mut self.ring {
            Some(ring) => starts.inspect(|&&start| ring.select(self.map, start)).map(|&start| [0, start]).collect(),
            None => starts.map(|&start| [start, start]).collect(),
        }
    }

    /// Prepares the rows of an image, the `number`th, that a row of targets reads.
    #[inline(always)]
    pub(crate) fn prepare(&mut self, image: &[T], number: usize, target: usize) {
        if let Some(ring) = &mut self.ring {
            for (_, row) in self.map.rows.taps_inside(target) {
                ring.spread(self.map, image, number, row);
            }
        }
    }

    /// Returns the cells of a row of targets in a phase of its columns, whose row blocks are
    /// collected in `blocks`. The rows must be prepared.
    pub(crate) fn cells<'c>(&'c self, image: &'c [T], target: usize, phase: &Phase, blocks: &'c mut Vec<RowBlock>) -> Cells<'c, T> {
        let map = self.map;
        let (source, width, (from, pitch)) = match &self.ring {
            Some(ring) => (&ring.data[..], ring.width, (ring.from, ring.pitch)),
            None => (image, map.columns.source, (0, map.channels[0])),
        };
        let offset = |row: usize| self.ring.as_ref().map_or(row * map.row()[0], |ring| ring.offset(row));
        map.row_blocks(target, phase, (from, pitch), offset, blocks);
        map.cells(source, [width, pitch], phase, blocks)
    }

    /// Returns the source elements to prefetch for the next row of targets; none if rows are spread
    /// out.
    pub(crate) fn ahead<'i>(&self, image: &'i [T], target: usize) -> &'i [T] {
        if self.ring.is_some() { &[] } else { self.map.ahead(image, target) }
    }
}

/// The last few source rows, padded, in the layout that one vector of target channels reads:
/// `[row][column][plane][lane]`, where each lane of plane `j` contains channel `j` of the lane's
/// group. A row is spread out once, and read by as many target rows as the kernel has rows.
struct Ring<T> {
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
    fn new(map: &WindowMap) -> Ring<T> {
        let range = map.columns.source_range(TILE);
        let (width, pitch, places) = (range.clone().count(), map.group[0] * map.lanes, map.rows.span());
        let data = AlignedVec::zeroed(places * width * pitch);
        Ring { data, held: vec![None; places], from: range.start, width, pitch, channels: vec![] }
    }

    /// Discards all rows, and selects the vector of target channels that starts at `start`.
    fn select(&mut self, map: &WindowMap, start: usize) {
        self.held.fill(None);
        self.channels.clear();
        self.channels.extend((start..start + map.used()).map(|channel| channel / map.group[1] * map.group[0]));
    }

    /// Returns the offset of a source row, once it is spread out.
    fn offset(&self, row: usize) -> usize {
        row % self.held.len() * self.width * self.pitch
    }

    /// Spreads out a row of a source image, unless the ring already contains it.
    #[inline(always)]
    fn spread(&mut self, map: &WindowMap, image: &[T], number: usize, row: usize) {
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
    for pixel in 0..from.len() / pitch {
        let (from, to) = (&from[pixel * pitch..][..pitch], &mut to[pixel * planes * lanes..][..planes * lanes]);
        for plane in 0..planes {
            for_pairs(&mut to[plane * lanes..][..lanes], channels, |to, channel| *to = from[channel + plane]);
        }
    }
}

/// Spreads out pixels of whole groups of `G` channels in both source and target. The compiler turns
/// each pixel into a few permutations within a register.
#[inline(always)]
fn spread_groups<T: Real, const LANES: usize, const G: usize>(from: &[T], pitch: usize, start: usize, to: &mut [T]) {
    let (to, []) = to.as_chunks_mut::<LANES>() else { unreachable!("planes have all lanes") };
    // Plain loops, as in `for_pairs`.
    for pixel in 0..from.len() / pitch {
        let from: [T; LANES] = *from[pixel * pitch + start..].first_chunk().expect("a vector lies within the pixel");
        let to: &mut [[T; LANES]; G] = to[pixel * G..].first_chunk_mut().expect("there is room for each pixel");
        for plane in 0..G {
            to[plane] = array(|lane| from[lane / G * G + plane]);
        }
    }
}
