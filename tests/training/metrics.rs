//! Metrics against scikit-learn; `fixtures/metrics.py` made the numbers.

use std::sync::LazyLock;

use convnet::train::metrics::{
    Accuracy, Averaging, ClassScore, ConfusionMatrix, Metric, RankingScore, RegressionScore, accuracy, average_precision, mae, r2_score,
    rmse, roc_auc, top_k_accuracy,
};
use convnet::{Error, Result, Tensor};
use serde_json::Value;

static FIXTURE: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("../fixtures/metrics.json")).unwrap());

fn number(value: &Value) -> f64 {
    if value == "inf" { f64::INFINITY } else { value.as_f64().unwrap_or(f64::NAN) }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect()
}

fn floats(value: &Value, columns: usize) -> Tensor {
    let values = numbers(value);
    let shape = [values.len() / columns, columns];
    Tensor::from_vec(values, &shape[..if columns == 1 { 1 } else { 2 }]).unwrap()
}

fn labels(values: &[i64]) -> Tensor {
    Tensor::from_slice(values, [values.len()]).unwrap()
}

fn cases(kind: &str) -> impl Iterator<Item = (&'static String, &'static Value)> {
    FIXTURE[kind].as_object().unwrap().iter()
}

/// A few roundings of f64 apart; NaN where scikit-learn has it.
fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
    let close = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-12 * b.abs().max(1.0);
    assert!(got.len() == expected.len() && got.iter().zip(expected).all(close), "{what}: {got:?} instead of {expected:?}");
}

/// The value of all at once, and in two shards that are merged, the second of them in two batches.
fn value<M: Metric + Clone>(metric: M, outputs: &Tensor, targets: &Tensor) -> M {
    let mut whole = metric.clone();
    whole.update(outputs, targets).unwrap();
    let count = targets.shape()[0];
    let (first, second) = (count / 3, count / 2);
    let part = |metric: &mut M, start: usize, end: usize| {
        let narrow = |x: &Tensor| x.narrow(0, start, end - start).unwrap();
        metric.update(&narrow(outputs), &narrow(targets)).unwrap();
    };
    let (mut a, mut b) = (metric.clone(), metric);
    if count > 1 {
        part(&mut a, 0, first);
        part(&mut b, first, second);
        part(&mut b, second, count);
        a.merge(&b).unwrap();
        assert_close("merged", &[a.value()], &[whole.value()]);
        a.reset();
        assert!(a.value().is_nan());
        a.merge(&whole).unwrap();
        assert_close("merged into an empty one", &[a.value()], &[whole.value()]);
    }
    whole
}

const AVERAGINGS: [(&str, Averaging); 3] = [("macro", Averaging::Macro), ("micro", Averaging::Micro), ("weighted", Averaging::Weighted)];
type NewScore = fn(usize) -> ClassScore;
const SCORES: [(&str, NewScore); 5] = [
    ("precision", ClassScore::precision),
    ("recall", ClassScore::recall),
    ("f1", ClassScore::f1),
    ("iou", ClassScore::iou),
    ("f1", ClassScore::dice),
];

/// Scores whose largest is the class.
fn one_hot(classes: &[i64], count: usize) -> Tensor {
    let scores = classes.iter().flat_map(|&class| (0..count).map(move |other| f32::from(other as i64 == class))).collect();
    Tensor::from_vec(scores, [classes.len(), count]).unwrap()
}

#[test]
fn scores_of_classes_are_those_of_scikit_learn() {
    for (case, expected) in cases("classes") {
        let classes = expected["classes"].as_u64().unwrap() as usize;
        let (targets, predictions) = (labels(&integers(&expected["labels"])), labels(&integers(&expected["predictions"])));
        let scores = one_hot(&integers(&expected["predictions"]), classes);
        for (name, new) in SCORES {
            for (average, averaging) in AVERAGINGS {
                for outputs in [&predictions, &scores] {
                    let metric = value(new(classes).averaging(averaging), outputs, &targets);
                    assert_close(&format!("{case} {name} {average}"), &[metric.value()], &[number(&expected[name][average])]);
                    // A class that does not occur is NaN, where scikit-learn has 0.
                    let per_class: Vec<f64> = metric.per_class().into_iter().map(|x| if x.is_nan() { 0.0 } else { x }).collect();
                    assert_close(&format!("{case} {name} per class"), &per_class, &numbers(&expected[name]["per_class"]));
                }
            }
        }
        let matrix = value(ConfusionMatrix::new(classes), &scores, &targets);
        let rows: Vec<Vec<u64>> = matrix.rows().map(<[u64]>::to_vec).collect();
        assert_eq!(serde_json::to_value(&rows).unwrap(), expected["confusion"], "{case}");
        for (name, new) in SCORES {
            let score = matrix.score(new(classes)).unwrap();
            assert_close(&format!("{case} {name} of the matrix"), &[score.value()], &[number(&expected[name]["macro"])]);
        }
        let expected = number(&expected["accuracy"]);
        assert_close("accuracy", &[matrix.value(), accuracy(&scores, &targets).unwrap()], &[expected; 2]);
        assert_close("accuracy", &[value(Accuracy::new(), &predictions, &targets).value()], &[expected]);
    }
}

#[test]
fn scores_of_several_labels_are_those_of_scikit_learn() {
    for (case, expected) in cases("labels") {
        let classes = expected["classes"].as_u64().unwrap() as usize;
        let scores = floats(&expected["scores"], classes);
        let targets = Tensor::from_vec(integers(&expected["targets"]), scores.shape()).unwrap();
        for (name, new) in SCORES {
            for (average, averaging) in AVERAGINGS {
                let metric = value(new(classes).multi_label(0.0).averaging(averaging), &scores, &targets);
                assert_close(&format!("{case} {name} {average}"), &[metric.value()], &[number(&expected[name][average])]);
            }
        }
        let precision = value(RankingScore::average_precision(), &scores, &targets);
        assert_close("average precisions", &precision.per_class(), &numbers(&expected["average_precisions"]));
        assert_close("average precision", &[precision.value()], &[number(&expected["average_precision"])]);
        let area = value(RankingScore::roc_auc(), &scores, &targets);
        assert_close("areas", &area.per_class(), &numbers(&expected["roc_aucs"]));
    }
    // scikit-learn: f1_score([[1, 0], [1, 0]], [[1, 0], [1, 0]], average="macro", zero_division=0).
    let targets = Tensor::from_vec(vec![1i64, 0, 1, 0], [2, 2]).unwrap();
    let scores = Tensor::from_vec(vec![1.0f32, -1.0, 1.0, -1.0], [2, 2]).unwrap();
    assert_eq!(value(ClassScore::f1(2).multi_label(0.0), &scores, &targets).value(), 0.5);
}

#[test]
fn curves_and_areas_are_those_of_scikit_learn() {
    for (case, expected) in cases("ranks") {
        let (scores, targets) = (floats(&expected["scores"], 1), labels(&integers(&expected["targets"])));
        let area = value(RankingScore::roc_auc(), &scores, &targets);
        assert_close(case, &[area.value(), roc_auc(&scores, &targets).unwrap()], &[number(&expected["roc_auc"]); 2]);
        let curve = area.roc_curve(0).unwrap();
        let curves = [&curve.false_positive_rates, &curve.true_positive_rates, &curve.thresholds];
        for (got, expected) in curves.iter().zip(expected["roc"].as_array().unwrap()) {
            assert_close(&format!("{case} ROC"), got, &numbers(expected));
        }
        let precision = value(RankingScore::average_precision(), &scores, &targets);
        let expected_precision = number(&expected["average_precision"]);
        assert_close(case, &[precision.value(), average_precision(&scores, &targets).unwrap()], &[expected_precision; 2]);
        let curve = precision.precision_recall_curve(0).unwrap();
        for (got, expected) in
            [&curve.precisions, &curve.recalls, &curve.thresholds].iter().zip(expected["precision_recall"].as_array().unwrap())
        {
            assert_close(&format!("{case} precision and recall"), got, &numbers(expected));
        }
    }
    let expected = &FIXTURE["one_vs_rest"];
    let (scores, targets) = (floats(&expected["scores"], 4), labels(&integers(&expected["labels"])));
    let areas = value(RankingScore::roc_auc(), &scores, &targets);
    assert_close("one against the rest", &[areas.value()], &[number(&expected["roc_auc"])]);
    let precision = value(RankingScore::average_precision(), &scores, &targets).value();
    assert_close("one against the rest", &[precision], &[number(&expected["average_precision"])]);
    for (k, share) in expected["top_k"].as_object().unwrap() {
        let k = k.parse().unwrap();
        assert_close("top k", &[value(Accuracy::top_k(k), &scores, &targets).value()], &[number(share)]);
        assert_eq!(top_k_accuracy(&scores, &targets, k).unwrap(), number(share));
    }
}

#[test]
fn errors_of_numbers_are_those_of_scikit_learn() {
    for (case, expected) in cases("numbers") {
        let shape: Vec<usize> = integers(&expected["shape"]).into_iter().map(|size| size as usize).collect();
        let tensor = |name: &str| Tensor::from_vec(numbers(&expected[name]), &shape).unwrap();
        let (predictions, targets) = (tensor("predictions"), tensor("targets"));
        let root = number(&expected["mse"]).sqrt();
        let metrics = [
            (RegressionScore::mae(), number(&expected["mae"])),
            (RegressionScore::mse(), number(&expected["mse"])),
            (RegressionScore::rmse(), root),
            (RegressionScore::r2(), number(&expected["r2"])),
        ];
        for (metric, expected) in metrics {
            assert_close(&format!("{case} {metric:?}"), &[value(metric.clone(), &predictions, &targets).value()], &[expected]);
        }
        let functions = [mae, rmse, r2_score].map(|function| function(&predictions, &targets).unwrap());
        assert_close(case, &functions, &[number(&expected["mae"]), root, number(&expected["r2"])]);
    }
    let (column, row) = (Tensor::zeros([3, 1]), Tensor::ones([3]));
    assert_eq!(mae(&column, &row).unwrap(), 1.0);
}

#[test]
fn equal_scores_rank_by_class_and_nan_comes_first() {
    let scores = Tensor::from_vec(vec![1.0f32, 1.0, 1.0, 0.5, f32::NAN, 2.0], [2, 3]).unwrap();
    let hits = |k: usize, label: i64| top_k_accuracy(&scores.narrow(0, 0, 1).unwrap(), &labels(&[label]), k).unwrap();
    assert_eq!([hits(1, 0), hits(1, 1), hits(2, 1), hits(2, 2), hits(3, 2), hits(9, 2)], [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]);
    let second = scores.narrow(0, 1, 1).unwrap();
    assert_eq!([1, 2].map(|label| top_k_accuracy(&second, &labels(&[label]), 2).unwrap()), [1.0, 1.0]);
    assert_eq!(top_k_accuracy(&second, &labels(&[0]), 2).unwrap(), 0.0);
    assert_eq!(accuracy(&second, &labels(&[1])).unwrap(), 1.0);
}

#[test]
fn pixels_of_scores_and_masks_count_and_an_ignored_label_does_not() {
    // Two pictures of 2×2 pixels, 2 classes.
    let scores = Tensor::from_vec((0..16).map(|i| (i * 5 % 7) as f32).collect(), [2, 2, 2, 2]).unwrap();
    let predicted = scores.argmax(1).unwrap().to_vec::<i64>().unwrap();
    let mut mask = predicted.clone();
    (mask[0], mask[5]) = (1 - mask[0], 255);
    let mask = Tensor::from_vec(mask.iter().map(|&x| x as u8).collect(), [2, 2, 2]).unwrap();
    let share = |metric: &mut dyn Metric| {
        metric.update(&scores, &mask).unwrap();
        metric.value()
    };
    assert_eq!(share(&mut Accuracy::new().ignore_label(255)), 6.0 / 7.0);
    assert_eq!(share(&mut ConfusionMatrix::new(2).ignore_label(255)), 6.0 / 7.0);
    assert_eq!(share(&mut ClassScore::recall(2).averaging(Averaging::Micro).ignore_label(255)), 6.0 / 7.0);
    assert_eq!(share(&mut Accuracy::top_k(2).ignore_label(255)), 1.0);
    let matrix = ConfusionMatrix::of(&labels(&[0, 0, 1]), &labels(&[0, 0, 0]), 2).unwrap();
    assert_eq!((matrix.count(0, 1), matrix.count(1, 1), matrix.count(2, 0), matrix.samples()), (1, 0, 0, 3));
    assert_close("shares", &matrix.normalized().concat(), &[2.0 / 3.0, 1.0 / 3.0, f64::NAN, f64::NAN]);
}

/// The numbers are those of `classification_report(labels, predicted, digits=4, zero_division=0)`
/// of scikit-learn 1.9.
#[test]
fn report_is_that_of_scikit_learn() {
    let (predicted, targets) = (labels(&[0, 1, 1, 0, 2, 1]), labels(&[0, 1, 2, 0, 2, 0]));
    let report = ConfusionMatrix::of(&predicted, &targets, 4).unwrap().report(&["cat", "dog"]).unwrap().to_string();
    let cells: Vec<Vec<&str>> =
        report.lines().filter(|line| !line.starts_with('─')).map(|line| line.split_whitespace().collect()).collect();
    let expected = [
        "precision recall F1 samples",
        "cat 1.0000 0.6667 0.8000 3",
        "dog 0.3333 1.0000 0.5000 1",
        "2 1.0000 0.5000 0.6667 2",
        "accuracy 0.6667 6",
        "macro average 0.7778 0.7222 0.6556 6",
        "weighted average 0.8889 0.6667 0.7056 6",
    ];
    assert_eq!(cells, expected.map(|line| line.split(' ').collect::<Vec<_>>()));
    assert!(ConfusionMatrix::new(usize::MAX).report::<&str>(&[]).is_err());
    assert!(ConfusionMatrix::new(2).score(ClassScore::f1(3)).unwrap_err().to_string().contains("3 classes, the matrix of 2"));
}

#[test]
fn input_that_does_not_fit_is_an_error_and_adds_nothing() {
    let scores = Tensor::zeros([3, 4]);
    let check = |metric: &mut dyn Metric, outputs: &Tensor, targets: &Tensor, word: &str| {
        let error = metric.update(outputs, targets).unwrap_err().to_string();
        assert!(error.contains(word), "{error} names {word}");
        assert!(metric.value().is_nan(), "{error}");
    };
    let metrics = || -> Vec<Box<dyn Metric>> {
        let top = Box::new(Accuracy::top_k(2));
        vec![
            Box::new(Accuracy::new()),
            top,
            Box::new(ConfusionMatrix::new(4)),
            Box::new(ClassScore::f1(4)),
            Box::new(RankingScore::roc_auc()),
        ]
    };
    for metric in &mut metrics() {
        for bad in [4, -1, i64::MIN, i64::MAX] {
            check(&mut **metric, &scores, &labels(&[0, bad, 1]), &format!("label {bad} of sample 1"));
        }
        check(&mut **metric, &scores, &labels(&[0, 1]), "[2]");
        check(&mut **metric, &Tensor::scalar(1.0f32), &labels(&[0]), "[]");
        check(&mut **metric, &scores, &Tensor::zeros([3]), "i64 or u8");
    }
    check(&mut ClassScore::f1(3), &scores, &labels(&[0, 1, 2]), "3 classes");
    check(&mut ConfusionMatrix::new(3), &labels(&[0, 3, 1]), &labels(&[0, 1, 2]), "prediction 3 of sample 1");
    for classes in [0, usize::MAX] {
        check(&mut ConfusionMatrix::new(classes), &labels(&[0]), &labels(&[0]), "number of classes");
        check(&mut ClassScore::f1(classes), &labels(&[0]), &labels(&[0]), "number of classes");
    }
    check(&mut Accuracy::top_k(0), &scores, &labels(&[0, 1, 2]), "at least 1");
    check(&mut Accuracy::new(), &labels(&[1, 2]), &labels(&[1]), "[2]");
    check(&mut ClassScore::f1(4).multi_label(0.0), &scores, &labels(&[0, 1, 2]), "[N, 4]");
    let twos = Tensor::from_vec(vec![2i64; 12], [3, 4]).unwrap();
    check(&mut ClassScore::f1(4).multi_label(0.0), &scores, &twos, "0 or 1");
    check(&mut RankingScore::roc_auc(), &scores, &twos, "0 or 1");
    let spoiled = Tensor::from_vec(vec![0.0f32, f32::NAN], [2]).unwrap();
    check(&mut RankingScore::average_precision(), &spoiled, &labels(&[0, 1]), "score of sample 1 is NaN");
    check(&mut RegressionScore::r2(), &Tensor::zeros([2, 2]), &Tensor::zeros([4]), "[2, 2] and [4]");
    assert!(RankingScore::roc_auc().roc_curve(0).is_err() && RankingScore::roc_auc().precision_recall_curve(1).is_err());
}

#[test]
fn empty_batches_are_no_error_and_other_settings_do_not_merge() -> Result<()> {
    let (none, some) = (Tensor::zeros([0, 2]), Tensor::zeros([2, 2]));
    let metrics: [Box<dyn Metric>; 4] =
        [Box::new(Accuracy::new()), Box::new(Accuracy::top_k(2)), Box::new(ClassScore::f1(2)), Box::new(RankingScore::roc_auc())];
    for mut metric in metrics {
        metric.update(&none, &labels(&[]))?;
        assert!(metric.value().is_nan());
        metric.update(&some, &labels(&[0, 1]))?;
        assert!(metric.value().is_finite());
    }
    let mut r2 = RegressionScore::r2();
    r2.update(&none, &none)?;
    assert!(r2.value().is_nan());
    r2.update(&some, &some)?;
    assert_eq!(r2.value(), 1.0);
    assert!(matches!(r2.update(&Tensor::zeros([2]), &Tensor::zeros([2])), Err(Error::Shape { .. })));
    assert!(matches!(r2.merge(&RegressionScore::mae()), Err(Error::Argument { .. })));
    assert!(Accuracy::new().merge(&Accuracy::top_k(2)).is_err());
    assert!(ClassScore::f1(2).merge(&ClassScore::iou(2)).is_err());
    assert!(ConfusionMatrix::new(2).merge(&ConfusionMatrix::new(3)).is_err());
    assert!(RankingScore::roc_auc().merge(&RankingScore::average_precision()).is_err());
    Ok(())
}
