//! Contour lines of a surface.

use super::Chart;

impl Chart {
    /// Adds contour lines of a surface, for each level a series named `name` and the level.
    ///
    /// `rows` has values at places that are evenly spaced over `x` (first and last place of a row)
    /// and `y` (first and last row). In each of the two triangles of a cell the surface counts as
    /// flat; where a value is not finite, and beyond the shortest row, there is none.
    ///
    /// ```
    /// use convnet::chart::Chart;
    ///
    /// let at = |i: usize| i as f64 / 5.0 - 1.0;
    /// let rows: Vec<Vec<f64>> = (0..11).map(|y| (0..11).map(|x| at(x).powi(2) + at(y).powi(2)).collect()).collect();
    /// let chart = Chart::new("A bowl").x("x").y("y").contours("height", &rows, (-1.0, 1.0), (-1.0, 1.0), [0.25, 0.5, 1.0]);
    /// assert!(chart.to_svg().contains("height 0.25"));
    /// ```
    pub fn contours(mut self, name: &str, rows: &[Vec<f64>], x: (f64, f64), y: (f64, f64), levels: impl IntoIterator<Item = f64>) -> Chart {
        let columns = rows.iter().map(Vec::len).min().unwrap_or(0);
        let place = |(low, high): (f64, f64), at: f64, count: usize| low + (high - low) * at / (count - 1) as f64;
        for level in levels {
            for segment in segments(rows, columns, level) {
                let points = segment.map(|(column, row)| (place(x, column, columns), place(y, row, rows.len())));
                self = self.curve(format!("{name} {level}"), points);
            }
        }
        self
    }
}

/// Returns the segments of a contour line, in steps of the grid: in each triangle, the line between
/// the two edges on which the values pass the level.
fn segments(rows: &[Vec<f64>], columns: usize, level: f64) -> Vec<[(f64, f64); 2]> {
    let mut segments = vec![];
    for row in 1..rows.len() {
        for column in 1..columns {
            let corner = |up: usize, left: usize| ((column - left) as f64, (row - up) as f64, rows[row - up][column - left]);
            for triangle in [[corner(1, 1), corner(1, 0), corner(0, 0)], [corner(1, 1), corner(0, 1), corner(0, 0)]] {
                if triangle.iter().any(|(_, _, value)| !value.is_finite()) {
                    continue;
                }
                let crossing = |(from, to): (usize, usize)| {
                    let ((x, y, value), (x2, y2, other)) = (triangle[from], triangle[to]);
                    ((value < level) != (other < level)).then(|| {
                        let part = (level - value) / (other - value);
                        (x + part * (x2 - x), y + part * (y2 - y))
                    })
                };
                let points: Vec<_> = [(0, 1), (1, 2), (0, 2)].into_iter().filter_map(crossing).collect();
                if let [first, second] = points[..] {
                    segments.push([first, second]);
                }
            }
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contour_of_a_cone_is_a_circle_and_closed() {
        let at = |i: usize| i as f64 / 20.0 - 1.0;
        let cone: Vec<Vec<f64>> = (0..41).map(|row| (0..41).map(|column| at(row).hypot(at(column))).collect()).collect();
        let segments = segments(&cone, 41, 0.5);
        assert!(segments.len() > 80, "{}", segments.len());
        for (column, row) in segments.iter().flatten() {
            let radius = (column / 20.0 - 1.0).hypot(row / 20.0 - 1.0);
            // Between neighbours, 0.05 apart, a circle of radius 0.5 bends by 0.05² / (8 · 0.5).
            assert!((radius - 0.5).abs() < 2e-3, "{radius}");
        }
        // Each point ends two segments.
        for point in segments.iter().flatten() {
            let near = |other: &&(f64, f64)| (point.0 - other.0).hypot(point.1 - other.1) < 1e-9;
            assert!(segments.iter().flatten().filter(near).count() >= 2, "{point:?}");
        }
    }

    #[test]
    fn contours_of_a_plane_are_lines_at_their_places() {
        let rows: Vec<Vec<f64>> = (0..3).map(|_| vec![0.0, 1.0, 2.0]).collect();
        let chart = Chart::new("t").contours("z", &rows, (10.0, 12.0), (0.0, 1.0), [0.5, 5.0]);
        let straight = Chart::new("t").curve("z 0.5", [(10.5, 0.0), (10.5, 0.25)]).curve("z 0.5", [(10.5, 0.0), (10.5, 0.5)]);
        assert_eq!(chart.names, straight.names);
        assert_eq!(chart.series.len(), 4);
        let points = chart.series.iter().flat_map(|series| match &series.shape {
            super::super::Shape::Line(points) => points.clone(),
            other => panic!("{other:?}"),
        });
        assert!(points.into_iter().all(|(x, y)| (x - 10.5).abs() < 1e-12 && (0.0..=1.0).contains(&y)));
    }

    #[test]
    fn surfaces_without_cells_or_with_gaps_have_no_lines_there() {
        for rows in [vec![], vec![vec![]], vec![vec![0.0, 1.0]], vec![vec![0.0], vec![1.0]], vec![vec![0.0, 1.0], vec![]]] {
            assert_eq!(Chart::new("t").contours("z", &rows, (0.0, 1.0), (0.0, 1.0), [0.5]), Chart::new("t"));
        }
        let gap = vec![vec![0.0, 1.0], vec![f64::NAN, 1.0]];
        assert_eq!(Chart::new("t").contours("z", &gap, (0.0, 1.0), (0.0, 1.0), [0.5]).series.len(), 1);
    }
}
