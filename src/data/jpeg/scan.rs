//! Scans: decoding of entropy-coded data to coefficients, sequential (T.81, annex F) and
//! progressive (annex G).
//!
//! Damaged data decodes as in libjpeg: invalid codes stand for zero, coefficients beyond a block's
//! end go to its last place, and where a marker ends the data too early, blocks keep their values
//! up to the next restart.

use super::huffman::{Bits, Table};
use super::{FILE_ORDER, Frame, Parsed, ZIGZAG};

/// The header of a scan.
pub(super) struct Scan {
    pub(super) progressive: bool,
    /// The first and the last coefficient, in the file's order.
    pub(super) band: [usize; 2],
    /// Where an earlier scan of these coefficients stopped (0: there was none), and where this one
    /// stops, as bit positions.
    pub(super) bits: [u32; 2],
    /// Components, each with the numbers of its tables for the first coefficient and for the
    /// others.
    pub(super) members: Vec<Member>,
    pub(super) restart_interval: usize,
}

#[derive(Clone, Copy)]
pub(super) struct Member {
    pub(super) component: usize,
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// The effect of a scan on a block.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum ScanKind {
    Sequential,
    First,
    RefineFirst,
    Others,
    RefineOthers,
}

/// A way of coding coefficients.
pub(super) trait Coder {
    /// Passes a restart marker and resets the state.
    fn restart(&mut self) -> Parsed<()>;
    /// Returns whether nothing can be decoded before the next restart.
    fn is_out(&self) -> bool;
    fn block(&mut self, member: Member, block: &mut [i16; 64]) -> Parsed<()>;
    /// Called after each unit, of one block or several.
    fn unit_done(&mut self) -> Parsed<()>;
}

impl Scan {
    pub(super) fn pass(&self) -> ScanKind {
        match (self.progressive, self.band[0], self.bits[0]) {
            (false, ..) => ScanKind::Sequential,
            (true, 0, 0) => ScanKind::First,
            (true, 0, _) => ScanKind::RefineFirst,
            (true, _, 0) => ScanKind::Others,
            (true, _, _) => ScanKind::RefineOthers,
        }
    }

    /// Returns whether the scan reads first coefficients from the start, and whether it reads
    /// others.
    pub(super) fn reads(&self) -> [bool; 2] {
        let pass = self.pass();
        [
            matches!(pass, ScanKind::Sequential | ScanKind::First),
            matches!(pass, ScanKind::Sequential | ScanKind::Others | ScanKind::RefineOthers),
        ]
    }

    pub(super) fn check(&self, frame: &Frame) -> Parsed<()> {
        let ([start, end], [high, low]) = (self.band, self.bits);
        let band = if start == 0 { end == 0 } else { start <= end && end < 64 && self.members.len() == 1 };
        // Sequential files do not use this field.
        if self.progressive && !(band && low <= 13 && (high == 0 || high == low + 1)) {
            return Err(format!("a scan of coefficients {start} to {end}, bits {high} to {low}, makes no sense"));
        }
        let blocks = |member: &Member| frame.components[member.component].sampling.iter().product::<usize>();
        if self.members.len() > 1 && self.members.iter().map(blocks).sum::<usize>() > 10 {
            return Err("it interleaves more blocks than allowed".to_string());
        }
        Ok(())
    }

    /// Decodes the scan into the frame's coefficients.
    pub(super) fn run<C: Coder>(&self, frame: &mut Frame, coder: &mut C) -> Parsed<()> {
        let mut to_restart = self.restart_interval;
        let mut next_unit = |coder: &mut C, row: usize, last_good_row: &mut usize| {
            if !coder.is_out() {
                *last_good_row = row;
            }
            if self.restart_interval > 0 {
                if to_restart == 0 {
                    coder.restart()?;
                    to_restart = self.restart_interval;
                }
                to_restart -= 1;
            }
            Parsed::Ok(!coder.is_out())
        };
        let [columns, rows] = frame.units;
        for row in 0..rows {
            // A frame that is decoded row by row has room for one row of units.
            let first_row = if frame.by_rows { 0 } else { row };
            if let [member] = self.members[..] {
                // A component alone comes block by block, without what fills the last units.
                let component = &mut frame.components[member.component];
                let (columns, rows, v) = (component.width.div_ceil(8), component.height.div_ceil(8), component.sampling[1]);
                for y in 0..v.min(rows.saturating_sub(row * v)) {
                    let blocks = &mut component.coefficients[(first_row * v + y) * component.blocks[0]..][..columns];
                    for block in blocks {
                        if next_unit(coder, row, &mut frame.last_good_row)? {
                            coder.block(member, block)?;
                            coder.unit_done()?;
                        }
                    }
                }
            } else {
                for column in 0..columns {
                    if !next_unit(coder, row, &mut frame.last_good_row)? {
                        continue;
                    }
                    for &member in &self.members {
                        let component = &mut frame.components[member.component];
                        let ([h, v], stride) = (component.sampling, component.blocks[0]);
                        for y in 0..v {
                            for block in &mut component.coefficients[(first_row * v + y) * stride + column * h..][..h] {
                                coder.block(member, block)?;
                            }
                        }
                    }
                    coder.unit_done()?;
                }
            }
            if frame.by_rows {
                frame.draw(0);
            }
        }
        Ok(())
    }
}

/// Huffman coding.
pub(super) struct Huffman<'a> {
    bits: Bits<'a>,
    pass: ScanKind,
    band: [usize; 2],
    /// The position of this scan's last bit.
    low: u32,
    tables: [&'a [Option<Table>; 4]; 2],
    /// The last first coefficient, by component.
    last: [i32; 4],
    /// The number of blocks to come that have nothing new in this band.
    run: u32,
    out: bool,
}

impl<'a> Huffman<'a> {
    pub(super) fn new(scan: &Scan, tables: [&'a [Option<Table>; 4]; 2], data: &'a [u8]) -> Parsed<Huffman<'a>> {
        let [dc, ac] = scan.reads();
        for member in &scan.members {
            let table = |kind: usize, number: usize| {
                tables[kind].get(number).and_then(Option::as_ref).ok_or_else(|| "picture data without its Huffman table".to_string())
            };
            if dc {
                table(0, member.dc)?.check_sizes()?;
            }
            if ac {
                table(1, member.ac)?;
            }
        }
        let (band, low) = (scan.band, scan.bits[1]);
        Ok(Huffman { bits: Bits::new(data)?, pass: scan.pass(), band, low, tables, last: [0; 4], run: 0, out: false })
    }

    /// Returns where the data ended: at a marker or at the end of the file.
    pub(super) fn end(&self) -> usize {
        self.bits.end()
    }

    /// Decodes the first coefficient, which is coded as the difference to that of the block before.
    #[inline]
    fn first(&mut self, member: Member) -> i32 {
        let Some(Some(table)) = self.tables[0].get(member.dc) else { return 0 };
        let last = &mut self.last[member.component];
        *last = last.wrapping_add(table.decode_number(&mut self.bits));
        *last
    }

    #[inline]
    fn sequential(&mut self, member: Member, block: &mut [i16; 64]) {
        block[0] = self.first(member) as i16;
        if let Some(Some(table)) = self.tables[1].get(member.ac) {
            table.decode_band(&mut self.bits, [1, 63], 0, &ZIGZAG, block);
        }
    }

    /// Decodes the first bits of a band.
    fn others(&mut self, member: Member, block: &mut [i16; 64]) {
        if self.run > 0 {
            self.run -= 1;
            return;
        }
        let Some(Some(table)) = self.tables[1].get(member.ac) else { return };
        if let Some(zeros) = table.decode_band(&mut self.bits, self.band, self.low, &FILE_ORDER, block) {
            self.run = (1 << zeros) - 1 + self.bits.take(zeros);
        }
    }

    /// Decodes one more bit of a band.
    fn refine(&mut self, member: Member, block: &mut [i16; 64]) {
        if let Some(Some(table)) = self.tables[1].get(member.ac) {
            table.refine_band(&mut self.bits, self.band, self.low, &mut self.run, block);
        }
    }
}

impl Coder for Huffman<'_> {
    fn restart(&mut self) -> Parsed<()> {
        self.out &= !self.bits.restart()?;
        (self.last, self.run) = ([0; 4], 0);
        Ok(())
    }

    #[inline]
    fn is_out(&self) -> bool {
        self.out
    }

    #[inline]
    fn block(&mut self, member: Member, block: &mut [i16; 64]) -> Parsed<()> {
        match self.pass {
            ScanKind::Sequential => self.sequential(member, block),
            ScanKind::First => block[0] = (self.first(member) << self.low) as i16,
            ScanKind::RefineFirst => block[0] |= (self.bits.take(1) << self.low) as i16,
            ScanKind::Others => self.others(member, block),
            ScanKind::RefineOthers => self.refine(member, block),
        }
        Ok(())
    }

    #[inline]
    fn unit_done(&mut self) -> Parsed<()> {
        self.out = self.bits.ran_out()?;
        Ok(())
    }
}
