//! Scans: entropy-coded data to coefficients, sequential (T.81, annex F) and progressive (annex G).

use super::huffman::{Bits, Table};
use super::{Frame, Parsed, ZIGZAG};

pub(super) struct Scan<'a> {
    /// The first and the last coefficient, in the file's order.
    pub(super) band: [usize; 2],
    /// Where an earlier scan of these coefficients stopped (0: there was none), and where this one stops, as bit positions.
    pub(super) bits: [u32; 2],
    /// Components, each with its tables for the first coefficient and for the others.
    pub(super) members: Vec<(usize, usize, usize)>,
    pub(super) tables: [&'a [Option<Table>; 4]; 2],
    pub(super) restart_interval: usize,
}

/// What a block's decoding carries over to the next.
struct State<'a> {
    bits: Bits<'a>,
    /// The last first coefficient, by component.
    last: [i32; 4],
    /// How many blocks to come have nothing new in this band.
    run: u32,
}

impl Scan<'_> {
    /// Decodes into the frame's coefficients; returns how long the data was.
    pub(super) fn run(&self, frame: &mut Frame, data: &[u8]) -> Parsed<usize> {
        self.check(frame)?;
        let mut state = State { bits: Bits::new(data), last: [0; 4], run: 0 };
        let mut units = 0;
        let mut next_unit = |state: &mut State<'_>| {
            if self.restart_interval > 0 && units > 0 && units % self.restart_interval == 0 {
                state.bits.restart(units / self.restart_interval - 1)?;
                (state.last, state.run) = ([0; 4], 0);
            }
            units += 1;
            Parsed::Ok(())
        };
        if let [member] = self.members[..] {
            // A component alone comes block by block, without what fills the last units.
            let component = &frame.components[member.0];
            let (columns, rows, stride) = (component.width.div_ceil(8), component.height.div_ceil(8), component.blocks[0]);
            for row in 0..rows {
                for column in 0..columns {
                    next_unit(&mut state)?;
                    self.block(frame, member, row * stride + column, &mut state)?;
                }
            }
        } else {
            let [columns, rows] = frame.units;
            for row in 0..rows {
                for column in 0..columns {
                    next_unit(&mut state)?;
                    for &member in &self.members {
                        let component = &frame.components[member.0];
                        let ([h, v], stride) = (component.sampling, component.blocks[0]);
                        for (y, x) in (0..v).flat_map(|y| (0..h).map(move |x| (y, x))) {
                            self.block(frame, member, (row * v + y) * stride + column * h + x, &mut state)?;
                        }
                    }
                }
            }
        }
        Ok(state.bits.end())
    }

    fn check(&self, frame: &Frame) -> Parsed<()> {
        let ([start, end], [high, low]) = (self.band, self.bits);
        let band = if start == 0 { end == 0 } else { start <= end && end < 64 && self.members.len() == 1 };
        // Sequential files have nothing to say here.
        if frame.progressive && !(band && low <= 13 && (high == 0 || high == low + 1)) {
            return Err(format!("a scan of coefficients {start} to {end}, bits {high} to {low}, makes no sense"));
        }
        let blocks = |&(index, _, _): &(usize, usize, usize)| frame.components[index].sampling.iter().product::<usize>();
        if self.members.len() > 1 && self.members.iter().map(blocks).sum::<usize>() > 10 {
            return Err("it interleaves more blocks than allowed".to_string());
        }
        Ok(())
    }

    fn block(&self, frame: &mut Frame, (index, dc, ac): (usize, usize, usize), block: usize, state: &mut State<'_>) -> Parsed<()> {
        let block = &mut frame.components[index].coefficients[block];
        let table = |kind: usize, number: usize| {
            self.tables[kind].get(number).and_then(Option::as_ref).ok_or_else(|| "picture data without its Huffman table".to_string())
        };
        let last = &mut state.last[index];
        match (frame.progressive, self.band[0], self.bits[0]) {
            (false, ..) => sequential(&mut state.bits, table(0, dc)?, table(1, ac)?, last, block)?,
            (true, 0, 0) => block[0] = (first(&mut state.bits, table(0, dc)?, last)? << self.bits[1]) as i16,
            (true, 0, _) => block[0] |= (state.bits.take(1) << self.bits[1]) as i16,
            (true, _, 0) => self.others(state, table(1, ac)?, block)?,
            (true, _, _) => self.refine(state, table(1, ac)?, block)?,
        }
        state.bits.check()
    }

    /// A band's first bits.
    fn others(&self, state: &mut State<'_>, table: &Table, block: &mut [i16; 64]) -> Parsed<()> {
        if state.run > 0 {
            state.run -= 1;
            return Ok(());
        }
        let mut k = self.band[0];
        while k <= self.band[1] {
            let symbol = table.decode(&mut state.bits)?;
            let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match (zeros, size) {
                (15, 0) => k += 16,
                (_, 0) => {
                    state.run = (1 << zeros) - 1 + state.bits.take(zeros);
                    break;
                }
                _ => {
                    k += zeros as usize;
                    *place(block, k, self.band[1])? = (state.bits.signed(size) << self.bits[1]) as i16;
                    k += 1;
                }
            }
        }
        Ok(())
    }

    /// One more bit of a band.
    fn refine(&self, state: &mut State<'_>, table: &Table, block: &mut [i16; 64]) -> Parsed<()> {
        let one = 1i16 << self.bits[1];
        let correct = |value: &mut i16, bits: &mut Bits<'_>| {
            if bits.take(1) == 1 && *value & one == 0 {
                *value = value.wrapping_add(if *value > 0 { one } else { -one });
            }
        };
        let mut k = self.band[0];
        if state.run == 0 {
            while k <= self.band[1] {
                let symbol = table.decode(&mut state.bits)?;
                let (mut zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
                let mut value = 0;
                match (zeros, size) {
                    (15, 0) => {}
                    (_, 0) => {
                        state.run = (1 << zeros) + state.bits.take(zeros);
                        break;
                    }
                    (_, 1) => value = if state.bits.take(1) == 1 { one } else { -one },
                    _ => return Err("picture data is damaged: a correction of more than one bit".to_string()),
                }
                // Those that are not zero get a bit each on the way to the place.
                loop {
                    if k > self.band[1] {
                        // Only sixteen zeros may run out of the band.
                        if value != 0 {
                            return Err("picture data is damaged: a coefficient outside its band".to_string());
                        }
                        break;
                    }
                    let present = place(block, k, self.band[1])?;
                    k += 1;
                    if *present != 0 {
                        correct(present, &mut state.bits);
                    } else if zeros == 0 {
                        *present = value;
                        break;
                    } else {
                        zeros -= 1;
                    }
                }
                state.bits.check()?;
            }
        }
        if state.run > 0 {
            for k in k..=self.band[1] {
                let present = place(block, k, self.band[1])?;
                if *present != 0 {
                    correct(present, &mut state.bits);
                }
            }
            state.run -= 1;
        }
        Ok(())
    }
}

fn place(block: &mut [i16; 64], k: usize, last: usize) -> Parsed<&mut i16> {
    match ZIGZAG.get(k) {
        Some(&place) if k <= last => Ok(&mut block[usize::from(place)]),
        _ => Err("picture data is damaged: a coefficient outside its band".to_string()),
    }
}

/// The first coefficient, which is coded as the difference to that of the block before.
fn first(bits: &mut Bits<'_>, table: &Table, last: &mut i32) -> Parsed<i32> {
    let size = u32::from(table.decode(bits)?);
    if size > 15 {
        return Err("picture data is damaged: a coefficient of too many bits".to_string());
    }
    *last = last.wrapping_add(bits.signed(size));
    Ok(*last)
}

fn sequential(bits: &mut Bits<'_>, dc: &Table, ac: &Table, last: &mut i32, block: &mut [i16; 64]) -> Parsed<()> {
    block[0] = first(bits, dc, last)? as i16;
    let mut k = 1;
    while k < 64 {
        let symbol = ac.decode(bits)?;
        let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        match (zeros, size) {
            (15, 0) => k += 16,
            (_, 0) => break,
            _ => {
                k += zeros;
                *place(block, k, 63)? = bits.signed(size) as i16;
                k += 1;
            }
        }
    }
    Ok(())
}
