//! Axes with round ticks, linear and logarithmic.

/// An axis with round ticks.
pub(super) struct Axis {
    /// The ends of the range; of the decimal logarithm when the axis is logarithmic.
    low: f64,
    high: f64,
    /// The distance of ticks, in the same unit.
    step: f64,
    logarithmic: bool,
}

impl Axis {
    /// Makes the linear axis that contains these values and has about `count` ticks.
    pub(super) fn over(values: impl Iterator<Item = f64>, count: usize) -> Axis {
        // Beyond this, differences of values are not finite.
        const LARGEST: f64 = 1e300;
        let (low, high) = ends(values.map(|value| value.clamp(-LARGEST, LARGEST)));
        // Values that are all equal are in the middle.
        let margin = if high - low > 1e-12 * low.abs().max(high.abs()) { 0.0 } else { (low.abs() / 2.0).max(1e-6) };
        let (low, high) = (low - margin, high + margin);
        let rough = (high - low) / count as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough * 0.999).unwrap_or(10.0 * power);
        Axis { low, high, step, logarithmic: false }
    }

    /// Makes the logarithmic axis that contains these values, all above 0, and has about `count`
    /// ticks.
    pub(super) fn logarithmic_over(values: impl Iterator<Item = f64>, count: usize) -> Axis {
        let (low, high) = ends(values.map(f64::log10));
        let margin = if high - low > 1e-9 { 0.0 } else { 0.5 };
        let (low, high) = (low - margin, high + margin);
        Axis { low, high, step: ((high - low) / count as f64).ceil().max(1.0), logarithmic: true }
    }

    /// Extends the range to the next ticks, so that no curve touches an edge.
    pub(super) fn widened(self) -> Axis {
        if self.logarithmic {
            let margin = 0.04 * (self.high - self.low);
            return Axis { low: self.low - margin, high: self.high + margin, ..self };
        }
        let (low, high) = ((self.low / self.step + 1e-9).floor() * self.step, (self.high / self.step - 1e-9).ceil() * self.step);
        Axis { low: low.min(self.low), high: high.max(self.high), ..self }
    }

    /// Returns the values that have a tick, at most 21 of them.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let multiples = |step: f64| {
            let first = (self.low / step - 1e-9).ceil();
            let last = (self.high / step + 1e-9).floor();
            (0..=(last - first).clamp(-1.0, 20.0) as i64).map(move |i| (first + i as f64) * step)
        };
        if !self.logarithmic {
            return multiples(self.step).collect();
        }
        let decades: Vec<f64> = multiples(self.step).map(|power| 10f64.powf(power)).collect();
        if self.high - self.low > 2.0 && decades.len() > 1 {
            return decades;
        }
        // Of a range of less than two decades, ticks inside of the decades too.
        let digits: &[f64] =
            if self.high - self.low > 0.8 { &[1.0, 2.0, 5.0] } else { &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0] };
        let decades = self.low.floor() as i32..=self.high.floor() as i32;
        let inside = |tick: &f64| (self.low - 1e-9..=self.high + 1e-9).contains(&tick.log10());
        decades.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power))).filter(inside).take(21).collect()
    }

    /// Returns where a value is between two places; values outside of the range are at its ends.
    pub(super) fn place(&self, value: f64, [from, to]: [f64; 2]) -> f64 {
        let value = if self.logarithmic { value.log10() } else { value };
        from + (to - from) * ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Returns whether the range contains a value.
    pub(super) fn contains(&self, value: f64) -> bool {
        let value = if self.logarithmic { value.log10() } else { value };
        (self.low..=self.high).contains(&value)
    }

    /// Returns the text of a tick, with the digits that its distance to the next one needs.
    pub(super) fn text(&self, tick: f64) -> String {
        if self.logarithmic {
            return if (1e-3..1e4).contains(&(tick * 1.0001)) { short(tick) } else { short_power(tick) };
        }
        let largest = self.low.abs().max(self.high.abs());
        // Zero without a sign.
        let tick = if tick.abs() < self.step * 1e-6 { 0.0 } else { tick };
        if largest >= 1e7 || (largest < 1e-3 && largest > 0.0) {
            return if tick == 0.0 { "0".to_string() } else { format!("{tick:.1e}") };
        }
        if largest >= 1e4 {
            let decimals = decimals_of(self.step / 1e3);
            return if tick == 0.0 { "0".to_string() } else { format!("{:.decimals$}k", tick / 1e3) };
        }
        format!("{tick:.*}", decimals_of(self.step))
    }
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// Returns the number of decimals that multiples of a step have.
fn decimals_of(step: f64) -> usize {
    (-(step.log10() + 1e-9).floor()).clamp(0.0, 8.0) as usize
}

/// Returns a number with three significant digits.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e7).contains(&size) {
        return short_power(value);
    }
    let text = format!("{value:.*}", if size == 0.0 { 0 } else { (2.0 - size.log10().floor()).clamp(0.0, 7.0) as usize });
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

fn short_power(value: f64) -> String {
    let text = format!("{value:.1e}");
    text.replace(".0e", "e")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        let axis = Axis::over([low, high].into_iter(), 5);
        axis.ticks().into_iter().map(|tick| axis.text(tick)).collect()
    }

    fn logarithmic(low: f64, high: f64) -> Vec<String> {
        let axis = Axis::logarithmic_over([low, high].into_iter(), 5);
        axis.ticks().into_iter().map(|tick| axis.text(tick)).collect()
    }

    #[test]
    fn ticks_are_round_numbers_inside_the_range() {
        assert_eq!(labels(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(1.0, 30.0), ["10", "20", "30"]);
        assert_eq!(labels(0.0, 62_500.0), ["0", "20k", "40k", "60k"]);
        assert_eq!(labels(-0.3, 0.31), ["-0.2", "0.0", "0.2"]);
        assert_eq!(labels(1e-5, 5e-5), ["1.0e-5", "2.0e-5", "3.0e-5", "4.0e-5", "5.0e-5"]);
        assert_eq!(logarithmic(1e-5, 1.0), ["1e-5", "1e-4", "0.001", "0.01", "0.1", "1"]);
        assert_eq!(logarithmic(1.0, 1e10), ["1", "100", "1e4", "1e6", "1e8", "1e10"]);
        assert_eq!(logarithmic(0.8, 60.0), ["1", "2", "5", "10", "20", "50"]);
        assert_eq!(logarithmic(2.0, 3.5), ["2", "3"]);
    }

    #[test]
    fn equal_and_extreme_values_have_an_axis() {
        for (low, high) in [(0.0, 0.0), (2.5, 2.5), (-1e308, 1e308), (1e-308, 2e-308), (1e15, 1e15 + 1.0)] {
            let axis = Axis::over([low, high].into_iter(), 5).widened();
            assert!(axis.low < axis.high && axis.step > 0.0, "{low} {high}");
            assert!(axis.ticks().len() <= 21);
            assert!((0.0..=100.0).contains(&axis.place(low, [0.0, 100.0])), "{low} {high}");
        }
        for (low, high) in [(f64::MIN_POSITIVE, f64::MAX), (2.5, 2.5), (5e-324, 1e-323)] {
            let axis = Axis::logarithmic_over([low, high].into_iter(), 5).widened();
            assert!(axis.low < axis.high && axis.ticks().len() <= 21, "{low} {high}");
            assert!((0.0..=100.0).contains(&axis.place(low, [0.0, 100.0])), "{low} {high}");
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([0.0, 0.98765, 12.0, 1234.6, 1e9, 1.24e-6, -0.5].map(short), ["0", "0.988", "12", "1235", "1e9", "1.2e-6", "-0.5"]);
    }
}
