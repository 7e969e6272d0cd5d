use std::fs;

use super::html::base64;
use super::*;

/// A name that would end every kind of element or attribute.
const EVIL: &str = "</bdi></script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>";

fn matrix(classes: usize) -> ConfusionMatrix {
    let targets: Vec<i64> = (0..classes * 20).map(|i| (i % classes) as i64).collect();
    let outputs: Vec<f32> = (0..targets.len())
        .flat_map(|i| {
            let predicted = if i / classes % 5 < 4 { i % classes } else { (i % classes + i / (3 * classes)) % classes };
            (0..classes).map(move |class| f32::from(u8::from(class == predicted)))
        })
        .collect();
    let outputs = Tensor::from_vec(outputs, [targets.len(), classes]).unwrap();
    ConfusionMatrix::of(&outputs, &Tensor::from_vec(targets.clone(), [targets.len()]).unwrap(), classes).unwrap()
}

fn noise(channels: usize, size: usize, seed: u32) -> Image {
    let mut state = seed;
    let bytes = (0..channels * size * size).map(|i| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 25) as usize + i / (size * channels) * 128 / size) as u8
    });
    Image::from_bytes([channels, size, size], bytes.collect()).unwrap()
}

/// A report with every section. `CONVNET_REPORT=FILE` writes it, to look at it.
fn full(classes: &[&str]) -> HtmlReport {
    let curve = |name: &str, offset: f64| {
        let value = move |x: f64| 2.3 * (-x / 9.0).exp() + offset + 0.05 * (x * 1.7 + offset * 40.0).sin();
        Curve::new(name, (1..=30).map(move |epoch| (f64::from(epoch), value(f64::from(epoch)))))
    };
    let accuracy = |name: &str, top: f64| {
        Curve::new(name, (1..=30).map(move |epoch| (f64::from(epoch), top * (1.0 - (-f64::from(epoch) / 6.0).exp()))))
    };
    let rate = Curve::new(
        "learning rate",
        (0..5000).map(|step| (f64::from(step) * 10.0, 0.05 * (1.0 + (f64::from(step) / 5000.0 * std::f64::consts::PI).cos()))),
    );
    let pictures: Vec<ReportPicture> = (0..12)
        .map(|i| {
            let image = noise(if i % 4 == 3 { 1 } else { 3 }, if i == 5 { 500 } else { 32 }, i as u32);
            ReportPicture::new(image, classes[i % classes.len()], classes[(i + 3) % classes.len()])
                .note(format!("loss {:.2}", 9.0 - i as f64 * 0.4))
        })
        .collect();
    let kernels: Vec<f32> = (0..32 * 75).map(|i| ((i * i % 97) as f32 / 48.0 - 1.0) * (i as f32 * 0.13).sin()).collect();
    HtmlReport::new("CIFAR-10, ResNet-20")
        .figures(&[("validation accuracy", "91.4 %"), ("validation loss", "0.412"), ("epochs", "30"), ("parameters", "272,474")])
        .curves("Loss", "epoch", &[curve("training", 0.05), curve("validation", 0.3)])
        .curves("Accuracy", "epoch", &[accuracy("training", 0.98), accuracy("validation", 0.91)])
        .curves("Learning rate", "step", &[rate])
        .confusion(&matrix(classes.len()), classes)
        .pictures("Worst-classified samples", &pictures)
        .kernels(&Tensor::from_vec(kernels, [32, 3, 5, 5]).unwrap())
        .configuration(&[
            ("model", "cifar_resnet20"),
            ("optimizer", "Sgd { lr: 0.1, momentum: 0.9, weight_decay: 5e-4 }"),
            ("batch", "128"),
        ])
        .text("Notes", "First line.\nSecond line, after a change of the schedule.")
        .time(Duration::from_secs(3725))
}

const CIFAR: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

#[test]
fn report_has_every_section_and_needs_nothing_from_outside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/report.html");
    full(&CIFAR).save(&path).unwrap();
    let html = fs::read_to_string(&path).unwrap();
    if let Some(path) = std::env::var_os("CONVNET_REPORT") {
        fs::write(path, &html).unwrap();
    }
    for title in ["Loss", "Confusion matrix", "Worst-classified samples", "Kernels of the first layer", "Configuration", "Machine and time"]
    {
        assert!(html.contains(&format!("<h2><bdi>{title}</bdi></h2>")), "{title}");
    }
    assert_eq!(html.matches("<img").count(), 12 + 32);
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("1 h 02 min") && html.contains("automobile"));
    for outside in ["http://", "https://", "<script", "url(", "@import", "<iframe"] {
        assert!(!html.contains(outside), "{outside}");
    }
    // Every element that is opened is closed.
    for element in ["section", "div", "table", "tr", "td", "svg", "figure", "ul", "li", "bdi", "span"] {
        let opened = html.matches(&format!("<{element}>")).count() + html.matches(&format!("<{element} ")).count();
        assert_eq!(opened, html.matches(&format!("</{element}>")).count(), "{element}");
    }
}

#[test]
fn kernels_are_scaled_around_zero_and_averaged_over_more_than_three_channels() {
    let html =
        |weight: Vec<f32>, shape: [usize; 4]| HtmlReport::new("a").kernels(&Tensor::from_vec(weight, shape).unwrap()).to_html().unwrap();
    let has = |html: &str, shape, bytes: Vec<u8>| {
        let png = Image::from_bytes(shape, bytes).unwrap().encode_png().unwrap();
        assert!(html.contains(&base64(&png)), "{html}");
    };
    let coloured = html(vec![-2.0, 0.0, 1.0, 0.0, 0.0, 4.0], [2, 3, 1, 1]);
    has(&coloured, [3, 1, 1], vec![0, 128, 191]);
    has(&coloured, [3, 1, 1], vec![128, 128, 255]);
    has(&html(vec![1.0, -3.0, 1.0, 1.0], [1, 2, 1, 2]), [1, 1, 2], vec![255, 0]);
}

#[test]
fn texts_from_outside_are_escaped_wherever_they_stand() {
    let classes = [EVIL, "b"];
    let html = full(&classes)
        .figures(&[(EVIL, EVIL)])
        .curves(EVIL, EVIL, &[Curve::new(EVIL, [(0.0, 1.0), (1.0, 2.0)])])
        .configuration(&[(EVIL, EVIL)])
        .text(EVIL, EVIL)
        .pictures(EVIL, &[ReportPicture::new(noise(3, 4, 1), EVIL, EVIL).note(EVIL)])
        .to_html()
        .unwrap();
    let titled = HtmlReport::new(EVIL).to_html().unwrap();
    for html in [html, titled] {
        assert!(!html.contains("<script") && !html.contains("<img src=x") && !html.contains("\"'>"));
        assert!(html.contains("&lt;script&gt;"));
    }
}

#[test]
fn matrix_of_many_classes_is_a_picture_and_lists_the_worst_ones() {
    let matrix = matrix(200);
    let html = HtmlReport::new("many").confusion(&matrix, &["only one name"]).to_html().unwrap();
    assert_eq!(html.matches("<img").count(), 1);
    assert!(html.contains("the 50 worst") && html.contains("width=\"200\""));
}

#[test]
fn matrix_without_samples_is_a_sentence_however_many_classes_it_has() {
    let html = HtmlReport::new("none").confusion(&ConfusionMatrix::new(usize::MAX), &["a"]).to_html().unwrap();
    assert!(html.contains("There are no samples."));
}

#[test]
fn parts_that_cannot_be_shown_are_the_error_of_the_end_and_write_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.html");
    let error = HtmlReport::new("a").kernels(&Tensor::zeros([4, 4])).figures(&[("a", "b")]).save(&path).unwrap_err();
    assert!(error.to_string().contains("[out, in, kH, kW]"), "{error}");
    let error = HtmlReport::new("a").pictures("b", &[ReportPicture::new(Image::new(7, 2, 2).unwrap(), "a", "b")]).save(&path).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    assert!(!path.exists());
    fs::write(dir.path().join("file"), "").unwrap();
    let error = HtmlReport::new("a").save(dir.path().join("file/report.html")).unwrap_err().to_string();
    assert!(error.contains("the report cannot be written; another file or folder is in its place"), "{error}");
}

#[test]
fn curve_without_finite_values_is_a_sentence() {
    let html = HtmlReport::new("a").curves("loss", "step", &[Curve::new("a", [(0.0, f64::NAN)])]).to_html().unwrap();
    assert!(html.contains("There are no values to draw.") && !html.contains("<svg"));
}

#[test]
fn history_of_a_run_has_training_and_validation_in_one_chart() {
    let record = |epoch: u64| EpochRecord {
        epoch,
        step: 10 * (epoch + 1),
        metrics: [("train/loss", 1.0), ("valid/loss", 2.0), ("lr", 0.1)]
            .map(|(name, value)| (name.to_string(), value))
            .into_iter()
            .collect(),
    };
    let html = HtmlReport::new("a").history(&[record(0), record(1)]).to_html().unwrap();
    assert_eq!(html.matches("<svg class=\"chart\"").count(), 2);
    assert!(html.contains("<bdi>training</bdi>") && html.contains("<bdi>validation</bdi>"));
}
