//! What a report says about the machine and the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::html::pairs;
use crate::kernels::runtime::{parallel, simd};

/// Returns the machine, the crate's version, the date, and how long the run took, as a table.
pub(super) fn describe(time: Option<Duration>) -> String {
    let cores = std::thread::available_parallelism().map_or("unknown".to_string(), |cores| cores.to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut rows = vec![
        ("Processor", processor().unwrap_or_else(|| std::env::consts::ARCH.to_string())),
        ("Cores", cores),
        ("Threads", parallel::num_threads().to_string()),
        ("Instructions", simd::instruction_set().to_string()),
        ("System", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("Crate", format!("convnet {}", env!("CARGO_PKG_VERSION"))),
        ("Report written", date(now)),
    ];
    if let Some(time) = time {
        rows.push(("Time of the run", duration(time)));
    }
    pairs(rows.iter().map(|(name, value)| (*name, value.as_str())))
}

/// Returns the processor's name, where the system reports it.
fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// Formats seconds since 1970 as a date and time in UTC.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the day of a leap year is the last one (H. Hinnant,
    // chrono-compatible low-level date algorithms).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest / 60 % 60)
}

fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_gregorian_calendar() {
        // `date -u -d @SECONDS`.
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_709_251_199), "2024-02-29 23:59 UTC");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00 UTC");
        assert_eq!([0.25, 75.0, 3725.0].map(|s| duration(Duration::from_secs_f64(s))), ["0.2 s", "1 min 15 s", "1 h 02 min"]);
    }
}
