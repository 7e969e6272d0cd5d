use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;

type Open = fn(&Path) -> Box<dyn Logger>;

/// The logs that are one file each.
const FILES: [Open; 2] = [|path| Box::new(CsvLog::new(path)), |path| Box::new(JsonLines::new(path))];

fn scalar(log: &mut dyn Logger, step: u64, name: &str, value: f64) {
    log.log(step, &[(name, LogValue::Scalar(value))]).unwrap();
}

/// The file without the times in it.
fn content(path: &Path) -> String {
    let text = String::from_utf8(fs::read(path).unwrap()).unwrap();
    let lines = text.split_inclusive('\n').map(|line| match (line.find(",\"time\":"), line.find(",\"loss\"")) {
        (Some(from), Some(to)) => line[..from].to_string() + &line[to..],
        _ => line.to_string(),
    });
    lines.collect()
}

#[test]
fn file_cut_at_any_byte_continues_as_if_it_had_not_been_cut() {
    for open in FILES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = open(&path);
        for step in 1..=4 {
            let note = LogValue::Text("two\nlines, \"quoted\"");
            log.log(step, &[("loss", LogValue::Scalar(1.0 / step as f64)), ("note", note)]).unwrap();
        }
        drop(log);
        let whole = fs::read(&path).unwrap();
        let expected = content(&path);
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut log = open(&path);
            log.rewind(2).unwrap();
            // The rows that were lost are written again, as a run that resumes does.
            let there = content(&path);
            let kept = (1..=2).filter(|step| there.contains(&format!("\n{step},")) || there.contains(&format!("\"step\":{step},"))).count();
            for step in kept as u64 + 1..=4 {
                let note = LogValue::Text("two\nlines, \"quoted\"");
                log.log(step, &[("loss", LogValue::Scalar(1.0 / step as f64)), ("note", note)]).unwrap();
            }
            assert_eq!(content(&path), expected, "cut at {cut}");
        }
    }
}

#[test]
fn existing_file_is_continued_without_its_incomplete_record() {
    for open in FILES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/log");
        let mut log = open(&path);
        scalar(&mut *log, 1, "loss", 0.5);
        scalar(&mut *log, 2, "loss", 0.25);
        drop(log);
        let whole = content(&path);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let mut log = open(&path);
        scalar(&mut *log, 2, "loss", 0.25);
        assert_eq!(content(&path), whole);
        log.rewind(0).unwrap();
        scalar(&mut *log, 1, "loss", 0.5);
        scalar(&mut *log, 2, "loss", 0.25);
        log.flush().unwrap();
        assert_eq!(content(&path), whole);
    }
}

#[test]
fn file_of_another_kind_is_refused_and_left_as_it_is() {
    for open in FILES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious.csv");
        fs::write(&path, "name,salary\nA,1\n").unwrap();
        let mut log = open(&path);
        for result in [log.rewind(0), log.log(1, &[("loss", LogValue::Scalar(1.0))])] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("choose another name for the log"), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "name,salary\nA,1\n");
    }
}

#[test]
fn names_of_the_log_itself_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (open, name) in [(FILES[0], "step"), (FILES[1], "step"), (FILES[1], "time")] {
        let error = open(&folder.path().join("log")).log(1, &[(name, LogValue::Scalar(1.0))]).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error}");
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
        fs::remove_file(folder.path().join("log")).ok();
    }
}

#[test]
fn columns_grow_and_fields_are_quoted_as_rfc_4180_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.csv");
    let mut log = CsvLog::new(&path);
    scalar(&mut log, 1, "a,b", f64::NAN);
    log.log(2, &[("say \"x\"", LogValue::Text("1,\"2\"\r\n3")), ("a,b", LogValue::Scalar(1e-300))]).unwrap();
    // Another process knows the columns.
    let mut log = CsvLog::new(&path);
    log.log(3, &[("say \"x\"", LogValue::Text("plain")), ("c", LogValue::Scalar(f64::NEG_INFINITY))]).unwrap();
    let expected = "step,\"a,b\",\"say \"\"x\"\"\",c\r\n1,NaN,,\r\n2,1e-300,\"1,\"\"2\"\"\r\n3\",\r\n3,,plain,-inf\r\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
}

#[test]
fn lines_of_json_hold_every_value_and_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let mut log = JsonLines::new(&path);
    let (image, tensor) = (Image::new(1, 1, 1).unwrap(), Tensor::zeros([2]));
    log.log(1, &[("i", LogValue::Image(&image)), ("h", LogValue::Histogram(&tensor))]).unwrap();
    let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.1 + 0.2, 1e300, -0.0];
    for (step, value) in values.into_iter().enumerate() {
        log.log(step as u64, &[("a\u{1}\"\n", LogValue::Scalar(7.0)), ("a\u{1}\"\n", LogValue::Scalar(value))]).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), values.len());
    for (step, (line, value)) in lines.iter().zip(values).enumerate() {
        let read = &line["a\u{1}\"\n"];
        assert_eq!(line["step"], step);
        assert!(line["time"].as_f64().unwrap() > 1.7e9);
        match read.as_str() {
            Some(name) => assert!(name.parse::<f64>().unwrap().total_cmp(&value).is_eq()),
            None => assert_eq!(read.as_f64().unwrap().to_bits(), value.to_bits()),
        }
    }
}

#[test]
fn folder_in_which_nothing_can_be_written_is_an_error_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for open in FILES {
        let mut log = open(&folder.path().join("file/log"));
        let error = log.rewind(0).unwrap_err().to_string();
        assert!(error.contains("choose another name") && error.contains("file"), "{error}");
    }
}

/// The file and the log of a child process that may write 512 or 1024 bytes to a file.
const CHILD: &str = "CONVNET_TEST_FULL_DISK";

#[cfg(target_os = "linux")]
#[test]
fn full_disk_is_an_error_with_advice_and_leaves_whole_records() {
    if let Some(path) = std::env::var_os(CHILD) {
        for (i, open) in FILES.into_iter().enumerate() {
            let path = Path::new(&path).join(i.to_string());
            let mut log = open(&path);
            let failed = (0..1000).find_map(|step| log.log(step, &[("loss", LogValue::Scalar(0.1 + 0.2))]).err());
            let error = failed.expect("1000 records do not fit").to_string();
            assert!(error.contains("free space there") && error.contains("is whole"), "{error}");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.ends_with('\n') && text.lines().count() > 3, "{text}");
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "train::log::tests::full_disk_is_an_error_with_advice_and_leaves_whole_records";
    let limited = format!("trap '' XFSZ; ulimit -f 1; exec \"$0\" {name} --exact --nocapture");
    let exe = std::env::current_exe().unwrap();
    let child = Command::new("sh").arg("-c").arg(limited).arg(exe).env(CHILD, folder.path()).output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}
