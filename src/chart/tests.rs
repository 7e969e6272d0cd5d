use super::*;

/// The texts of an SVG file.
fn texts(svg: &str) -> Vec<&str> {
    svg.split("</text>").filter_map(|part| part.rsplit_once('>')).map(|(_, text)| text).filter(|text| !text.is_empty()).collect()
}

#[test]
fn file_has_title_labels_and_one_legend_entry_for_each_name() {
    let chart = Chart::new("Title")
        .x("epoch")
        .y("loss")
        .curve("a", [(0.0, 1.0), (1.0, 2.0)])
        .band("a", [(0.0, 0.5, 1.5), (1.0, 1.5, 2.5)])
        .points("b", [(0.0, 1.0), (1.0, 1.0)])
        .curve("", [(0.0, 1.0), (1.0, 2.0)])
        .vertical("best", 0.5)
        .horizontal("chance", 1.25);
    let svg = chart.to_svg();
    for text in ["Title", "epoch", "loss", "best", "chance", "b"] {
        assert_eq!(texts(&svg).iter().filter(|&&found| found == text).count(), 1, "{text}: {svg}");
    }
    assert_eq!(texts(&svg).iter().filter(|&&found| found == "a").count(), 1);
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.trim_end().ends_with("</svg>"));
    for element in ["svg", "text", "style"] {
        assert_eq!(svg.matches(&format!("<{element}")).count(), svg.matches(&format!("</{element}>")).count(), "{element}");
    }
}

#[test]
fn long_curves_keep_their_peaks_and_gaps_stay_gaps() {
    let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
    points[54_321].1 = 9.0;
    let svg = Chart::new("loss").curve("training", points).to_element().unwrap();
    assert!(svg.len() < 20_000, "{}", svg.len());
    // The vertical axis is 190 long and ends at 10.
    let peak = 200.0 - 190.0 * 0.9;
    assert!(svg.contains(&format!(" {peak:.1}L")), "{peak}");
    let gap = Chart::new("loss").curve("a", [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0)]).to_element().unwrap();
    assert_eq!((gap.matches("<path").count(), gap.matches("<circle").count()), (1, 1));
    let logarithmic = Chart::new("loss").log_y().curve("a", [(0.0, 1.0), (1.0, 2.0), (2.0, 0.0), (3.0, 1.0)]);
    let svg = logarithmic.to_element().unwrap();
    assert_eq!((svg.matches("<path").count(), svg.matches("<circle").count()), (1, 1));
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn many_points_and_bars_make_a_small_file() {
    let many = (0..300_000).map(|i| (f64::from(i % 1000), f64::from(i / 1000)));
    assert!(Chart::new("t").points("p", many).to_svg().len() < 12_000_000);
    let bars = Chart::new("t").bars("b", (0..500).map(|i| (i.to_string(), f64::from(i)))).to_svg();
    assert!(texts(&bars).len() < 60 && bars.matches("<rect").count() > 500);
}

#[test]
fn legend_has_one_sample_of_each_kind_and_bars_one_place_for_each_name() {
    let rows: Vec<Vec<f64>> = (0..9).map(|y| (0..9).map(|x| f64::from(x * x + y * y)).collect()).collect();
    let chart = Chart::new("t").contours("z", &rows, (0.0, 1.0), (0.0, 1.0), [30.0]);
    assert!(chart.series.len() > 8);
    assert_eq!(chart.legend().map(|(_, _, shapes)| shapes.len()).collect::<Vec<_>>(), [1]);
    let bars = |name: &str, chart: Chart| chart.bars(name, [("x", 1.0)]);
    let two = bars("b", bars("a", Chart::new("t")));
    assert_eq!(bars("a", two.clone()).bar_of(1, 0), two.bar_of(1, 0));
}

#[test]
fn chart_without_values_says_so() {
    let charts = [
        Chart::new("t"),
        Chart::new("t").curve("a", [(0.0, f64::NAN), (f64::INFINITY, 1.0)]),
        Chart::new("t").log_x().points("a", [(0.0, 1.0), (-1.0, 1.0)]),
        Chart::new("t").bars("a", [("x", f64::NAN)]),
    ];
    for chart in charts {
        assert!(chart.to_svg().contains("no values to draw"), "{chart:?}");
        assert!(chart.to_element().is_none());
    }
    assert!(Chart::panels(&[], 0).to_svg().ends_with("</svg>\n"));
}

#[test]
fn texts_are_escaped_in_every_place() {
    const EVIL: &str = "</text><script>\"'&";
    let chart =
        Chart::new(EVIL).x(EVIL).y(EVIL).bars(EVIL, [(EVIL, 1.0)]).curve("c", [(0.0, 1.0)]).vertical(EVIL, 0.0).horizontal(EVIL, 1.0);
    let svg = chart.to_svg();
    assert!(!svg.contains("<script") && !svg.contains("\"'&\"") && svg.matches("&lt;script").count() >= 7, "{svg}");
}

#[test]
fn ranges_cut_and_nonsense_ranges_have_no_effect() {
    let chart = Chart::new("t").curve("a", [(0.0, 1.0), (1.0, 1000.0)]);
    let cut = chart.clone().y_range(0.0, 2.0).to_svg();
    assert!(texts(&cut).contains(&"2.0") && !texts(&cut).contains(&"1000"));
    for (low, high) in [(1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
        assert_eq!(chart.clone().y_range(low, high).to_svg(), chart.to_svg());
    }
    assert_eq!(chart.clone().log_y().y_range(0.0, 5.0).to_svg(), chart.log_y().to_svg());
}

#[test]
fn bars_of_two_series_stand_side_by_side_with_their_errors() {
    let chart = Chart::new("t").bars("a", [("x", 1.0), ("y", 2.0)]).bars("b", [("y", 3.0)]).errors("b", [(1.0, 2.5, 3.5)]);
    let (a, b) = (chart.bar_of(0, 1).unwrap(), chart.bar_of(1, 1).unwrap());
    assert!(a.1 <= b.0 && a.0 >= 0.5 && b.1 <= 1.5, "{a:?} {b:?}");
    assert_eq!(chart.categories, ["x", "y"]);
    assert_eq!(chart.to_svg().matches("class=\"error\"").count(), 1);
}

#[test]
fn files_are_written_into_new_folders_and_failures_have_advice() {
    let dir = tempfile::tempdir().unwrap();
    let chart = Chart::new("t").curve("a", [(0.0, 1.0), (1.0, 1.0)]);
    chart.save(dir.path().join("a/b.svg")).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("a/b.svg")).unwrap(), chart.to_svg());
    let error = chart.save(dir.path().join("a/b.svg/c.svg")).unwrap_err().to_string();
    assert!(error.contains("the chart cannot be written; another file or folder is in its place"), "{error}");
}
