//! Arithmetic coding (T.81, annex D and F.1.4, F.2.4, G.1.3), as libjpeg decodes it (`jdarith.c`).

use super::scan::{Coder, Member, Scan, ScanKind};
use super::source::{Source, TRUNCATED};
use super::{FILE_ORDER, Parsed, ZIGZAG};

/// Bounds that decide which statistics a table uses; the file may set them.
#[derive(Clone, Copy)]
pub(super) struct Conditioning {
    /// Differences of first coefficients count as small between these powers of two.
    pub(super) dc: [[u8; 2]; 16],
    /// The last of the coefficients that count as low frequencies.
    pub(super) ac: [u8; 16],
}

impl Default for Conditioning {
    fn default() -> Conditioning {
        Conditioning { dc: [[0, 1]; 16], ac: [5; 16] }
    }
}

/// The statistics bin of decisions with equal probabilities.
const EVEN: u8 = 113;

/// The coder's registers are libjpeg's: `interval` is A, `code` is C with the bits to come below
/// it, of which there are `count`.
pub(super) struct Arithmetic<'a> {
    source: Source<'a>,
    interval: u64,
    code: u64,
    count: i32,
    pass: ScanKind,
    band: [usize; 2],
    /// The position of this scan's last bit.
    low: u32,
    /// The places of coefficients in a block.
    order: &'static [u8; 64],
    conditioning: Conditioning,
    dc_bins: [[u8; 64]; 16],
    ac_bins: [[u8; 256]; 16],
    /// The last first coefficient, and the kind of its difference, by component.
    last: [i32; 4],
    context: [usize; 4],
    /// Whether an impossible number was decoded: nothing counts until the next restart.
    broken: bool,
    truncated: bool,
}

impl<'a> Arithmetic<'a> {
    pub(super) fn new(scan: &Scan, conditioning: Conditioning, data: &'a [u8]) -> Arithmetic<'a> {
        Arithmetic {
            source: Source::new(data),
            interval: 0,
            code: 0,
            count: -16,
            pass: scan.pass(),
            band: scan.band,
            low: scan.bits[1],
            order: if scan.progressive { &FILE_ORDER } else { &ZIGZAG },
            conditioning,
            dc_bins: [[0; 64]; 16],
            ac_bins: [[0; 256]; 16],
            last: [0; 4],
            context: [0; 4],
            broken: false,
            truncated: false,
        }
    }

    pub(super) fn end(&self) -> usize {
        self.source.end()
    }

    /// Returns the next byte; zeros after a marker, which is legal here.
    fn byte(&mut self) -> u64 {
        match self.source.byte() {
            Some(byte) => u64::from(byte),
            None => {
                self.truncated |= self.source.truncated();
                0
            }
        }
    }

    /// Returns the next decision by a bin's statistics, which it updates (D.2). The highest bit of
    /// a bin is the likelier decision, the others are its state.
    fn decide(&mut self, bin: u8) -> (bool, u8) {
        while self.interval < 0x8000 {
            self.count -= 1;
            if self.count < 0 {
                self.code = (self.code << 8) | self.byte();
                self.count += 8;
                if self.count < 0 {
                    // Two bytes come first.
                    self.count += 1;
                    if self.count == 0 {
                        self.interval = 0x8000;
                    }
                }
            }
            self.interval <<= 1;
        }
        let (estimate, if_unlikely, if_likely, switch) = STATES[usize::from(bin & 0x7F).min(STATES.len() - 1)];
        let (likely, estimate) = (bin & 0x80, u64::from(estimate));
        let unlikely_next = likely ^ if_unlikely ^ (switch << 7);
        self.interval -= estimate;
        let bound = self.interval << self.count;
        let (is_likely, next) = if self.code >= bound {
            self.code -= bound;
            let exchanged = self.interval < estimate;
            self.interval = estimate;
            if exchanged { (true, likely ^ if_likely) } else { (false, unlikely_next) }
        } else if self.interval < 0x8000 {
            if self.interval < estimate { (false, unlikely_next) } else { (true, likely ^ if_likely) }
        } else {
            (true, bin)
        };
        ((likely != 0) == is_likely, next)
    }

    fn even(&mut self) -> bool {
        self.decide(EVEN).0
    }

    fn dc(&mut self, table: usize, bin: usize) -> bool {
        let (decision, next) = self.decide(self.dc_bins[table][bin]);
        self.dc_bins[table][bin] = next;
        decision
    }

    fn ac(&mut self, table: usize, bin: usize) -> bool {
        let (decision, next) = self.decide(self.ac_bins[table][bin]);
        self.ac_bins[table][bin] = next;
        decision
    }

    /// Doubles a magnitude as long as the decisions from `bin` on are true; returns it and the last
    /// bin.
    fn magnitude(&mut self, mut magnitude: i32, mut bin: usize, decide: impl Fn(&mut Self, usize) -> bool) -> Option<(i32, usize)> {
        while decide(self, bin) {
            magnitude <<= 1;
            if magnitude == 0x8000 {
                self.broken = true;
                return None;
            }
            bin += 1;
        }
        Some((magnitude, bin))
    }

    /// Returns a number from its magnitude's lower bits and its sign.
    fn finish(&mut self, magnitude: i32, negative: bool, decide: impl Fn(&mut Self) -> bool) -> i32 {
        let (mut value, mut bit) = (magnitude, magnitude >> 1);
        while bit > 0 {
            if decide(self) {
                value |= bit;
            }
            bit >>= 1;
        }
        if negative { -value - 1 } else { value + 1 }
    }

    /// Decodes the first coefficient (F.2.4.1); `None` when its code is broken.
    fn first(&mut self, Member { component, dc, .. }: Member) -> Option<i32> {
        let bin = self.context[component];
        if !self.dc(dc, bin) {
            self.context[component] = 0;
            return Some(self.last[component]);
        }
        let negative = self.dc(dc, bin + 1);
        let mut bin = bin + 2 + usize::from(negative);
        let mut magnitude = 0;
        if self.dc(dc, bin) {
            (magnitude, bin) = self.magnitude(1, 20, |coder, bin| coder.dc(dc, bin))?;
        }
        let [low, high] = self.conditioning.dc[dc].map(|power| (1i32 << power) >> 1);
        let kind = if magnitude < low { 0 } else { 4 + 4 * usize::from(negative) };
        self.context[component] = if magnitude > high { kind + 8 } else { kind };
        let difference = self.finish(magnitude, negative, |coder| coder.dc(dc, bin + 14));
        self.last[component] = (self.last[component] + difference) & 0xFFFF;
        Some(self.last[component])
    }

    /// Decodes a band's coefficients (F.2.4.2), shifted by `low`.
    fn others(&mut self, table: usize, band: [usize; 2], low: u32, block: &mut [i16; 64]) {
        let mut k = band[0];
        while k <= band[1] {
            if self.ac(table, 3 * (k - 1)) {
                return;
            }
            while !self.ac(table, 3 * (k - 1) + 1) {
                k += 1;
                if k > band[1] {
                    self.broken = true;
                    return;
                }
            }
            let negative = self.even();
            let mut bin = 3 * (k - 1) + 2;
            let mut magnitude = 0;
            if self.ac(table, bin) {
                magnitude = 1;
                if self.ac(table, bin) {
                    let first = if k <= usize::from(self.conditioning.ac[table]) { 189 } else { 217 };
                    let Some(found) = self.magnitude(2, first, |coder, bin| coder.ac(table, bin)) else { return };
                    (magnitude, bin) = found;
                }
            }
            let value = self.finish(magnitude, negative, |coder| coder.ac(table, bin + 14));
            block[usize::from(self.order[k])] = (value << low) as i16;
            k += 1;
        }
    }

    /// Decodes one more bit of a band (G.1.3.3).
    fn refine(&mut self, table: usize, block: &mut [i16; 64]) {
        let one = 1i16 << self.low;
        let end = (1..=self.band[1]).rev().find(|&k| block[usize::from(self.order[k])] != 0).unwrap_or(0);
        let mut k = self.band[0];
        while k <= self.band[1] {
            if k > end && self.ac(table, 3 * (k - 1)) {
                return;
            }
            loop {
                let bin = 3 * (k - 1);
                let value = block[usize::from(self.order[k])];
                let step = if value < 0 { -one } else { one };
                if value != 0 {
                    if self.ac(table, bin + 2) {
                        block[usize::from(self.order[k])] = value.wrapping_add(step);
                    }
                    break;
                }
                if self.ac(table, bin + 1) {
                    block[usize::from(self.order[k])] = if self.even() { -one } else { one };
                    break;
                }
                k += 1;
                if k > self.band[1] {
                    self.broken = true;
                    return;
                }
            }
            k += 1;
        }
    }
}

impl Coder for Arithmetic<'_> {
    fn restart(&mut self) -> Parsed<()> {
        self.source.restart()?;
        (self.interval, self.code, self.count) = (0, 0, -16);
        (self.dc_bins, self.ac_bins) = ([[0; 64]; 16], [[0; 256]; 16]);
        (self.last, self.context, self.broken) = ([0; 4], [0; 4], false);
        Ok(())
    }

    /// Returns false: zeros follow the end of the data, and broken blocks are left out one by one.
    fn is_out(&self) -> bool {
        false
    }

    fn block(&mut self, member: Member, block: &mut [i16; 64]) -> Parsed<()> {
        if self.broken {
            return Ok(());
        }
        match self.pass {
            ScanKind::Sequential => {
                if let Some(first) = self.first(member) {
                    block[0] = first as i16;
                    self.others(member.ac, [1, 63], 0, block);
                }
            }
            ScanKind::First => {
                if let Some(first) = self.first(member) {
                    block[0] = (first << self.low) as i16;
                }
            }
            ScanKind::RefineFirst => block[0] |= i16::from(self.even()) << self.low,
            ScanKind::Others => self.others(member.ac, self.band, self.low, block),
            ScanKind::RefineOthers => self.refine(member.ac, block),
        }
        Ok(())
    }

    fn unit_done(&mut self) -> Parsed<()> {
        if self.truncated { Err(TRUNCATED.to_string()) } else { Ok(()) }
    }
}

/// The states of a bin: how likely the unlikely decision is, in 0x10000ths of the interval, the
/// next state after it and after the other one, and whether it becomes the likely one (T.81, table
/// D.3). The last one is an even chance that stays so.
#[rustfmt::skip]
const STATES: [(u16, u8, u8, u8); 114] = [
    (0x5A1D, 1, 1, 1), (0x2586, 14, 2, 0), (0x1114, 16, 3, 0), (0x080B, 18, 4, 0), (0x03D8, 20, 5, 0), (0x01DA, 23, 6, 0),
    (0x00E5, 25, 7, 0), (0x006F, 28, 8, 0), (0x0036, 30, 9, 0), (0x001A, 33, 10, 0), (0x000D, 35, 11, 0), (0x0006, 9, 12, 0),
    (0x0003, 10, 13, 0), (0x0001, 12, 13, 0), (0x5A7F, 15, 15, 1), (0x3F25, 36, 16, 0), (0x2CF2, 38, 17, 0), (0x207C, 39, 18, 0),
    (0x17B9, 40, 19, 0), (0x1182, 42, 20, 0), (0x0CEF, 43, 21, 0), (0x09A1, 45, 22, 0), (0x072F, 46, 23, 0), (0x055C, 48, 24, 0),
    (0x0406, 49, 25, 0), (0x0303, 51, 26, 0), (0x0240, 52, 27, 0), (0x01B1, 54, 28, 0), (0x0144, 56, 29, 0), (0x00F5, 57, 30, 0),
    (0x00B7, 59, 31, 0), (0x008A, 60, 32, 0), (0x0068, 62, 33, 0), (0x004E, 63, 34, 0), (0x003B, 32, 35, 0), (0x002C, 33, 9, 0),
    (0x5AE1, 37, 37, 1), (0x484C, 64, 38, 0), (0x3A0D, 65, 39, 0), (0x2EF1, 67, 40, 0), (0x261F, 68, 41, 0), (0x1F33, 69, 42, 0),
    (0x19A8, 70, 43, 0), (0x1518, 72, 44, 0), (0x1177, 73, 45, 0), (0x0E74, 74, 46, 0), (0x0BFB, 75, 47, 0), (0x09F8, 77, 48, 0),
    (0x0861, 78, 49, 0), (0x0706, 79, 50, 0), (0x05CD, 48, 51, 0), (0x04DE, 50, 52, 0), (0x040F, 50, 53, 0), (0x0363, 51, 54, 0),
    (0x02D4, 52, 55, 0), (0x025C, 53, 56, 0), (0x01F8, 54, 57, 0), (0x01A4, 55, 58, 0), (0x0160, 56, 59, 0), (0x0125, 57, 60, 0),
    (0x00F6, 58, 61, 0), (0x00CB, 59, 62, 0), (0x00AB, 61, 63, 0), (0x008F, 61, 32, 0), (0x5B12, 65, 65, 1), (0x4D04, 80, 66, 0),
    (0x412C, 81, 67, 0), (0x37D8, 82, 68, 0), (0x2FE8, 83, 69, 0), (0x293C, 84, 70, 0), (0x2379, 86, 71, 0), (0x1EDF, 87, 72, 0),
    (0x1AA9, 87, 73, 0), (0x174E, 72, 74, 0), (0x1424, 72, 75, 0), (0x119C, 74, 76, 0), (0x0F6B, 74, 77, 0), (0x0D51, 75, 78, 0),
    (0x0BB6, 77, 79, 0), (0x0A40, 77, 48, 0), (0x5832, 80, 81, 1), (0x4D1C, 88, 82, 0), (0x438E, 89, 83, 0), (0x3BDD, 90, 84, 0),
    (0x34EE, 91, 85, 0), (0x2EAE, 92, 86, 0), (0x299A, 93, 87, 0), (0x2516, 86, 71, 0), (0x5570, 88, 89, 1), (0x4CA9, 95, 90, 0),
    (0x44D9, 96, 91, 0), (0x3E22, 97, 92, 0), (0x3824, 99, 93, 0), (0x32B4, 99, 94, 0), (0x2E17, 93, 86, 0), (0x56A8, 95, 96, 1),
    (0x4F46, 101, 97, 0), (0x47E5, 102, 98, 0), (0x41CF, 103, 99, 0), (0x3C3D, 104, 100, 0), (0x375E, 99, 93, 0), (0x5231, 105, 102, 0),
    (0x4C0F, 106, 103, 0), (0x4639, 107, 104, 0), (0x415E, 103, 99, 0), (0x5627, 105, 106, 1), (0x50E7, 108, 107, 0), (0x4B85, 109, 103, 0),
    (0x5597, 110, 109, 0), (0x504F, 111, 107, 0), (0x5A10, 110, 111, 1), (0x5522, 112, 109, 0), (0x59EB, 112, 111, 1), (0x5A1D, 113, 113, 0),
];
