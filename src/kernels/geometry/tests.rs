use super::*;

#[test]
fn output_sizes_match_pytorch() {
    let size = |input, kernel, stride, padding, dilation, ceil| {
        let window = Window::new([input; 2], [kernel; 2], [stride; 2], [padding; 2], [dilation; 2], ceil);
        window.unwrap().output[0]
    };
    assert_eq!(size(112, 3, 2, 1, 1, false), 56);
    assert_eq!(size(5, 2, 2, 0, 1, false), 2);
    assert_eq!(size(5, 2, 2, 0, 1, true), 3);
    assert_eq!(size(7, 3, 2, 0, 2, false), 2);
    // The third window would start at 6 of 4 + 1: behind the input, so it is dropped.
    assert_eq!(size(4, 2, 3, 1, 1, true), 2);
    // A kernel larger than the input is accepted if the stride lets the only window extend
    // beyond the end.
    assert_eq!(size(3, 4, 2, 0, 1, true), 1);
}

#[test]
fn error_names_wrong_parameter() {
    let error = |input, kernel, stride, dilation| Window::new(input, kernel, stride, [0, 0], dilation, false).unwrap_err();
    assert_eq!(error([3, 3], [5, 5], [1, 1], [1, 1]), "kernel 5×5 is larger than the padded input 3×3");
    assert_eq!(error([4, 9], [3, 3], [1, 1], [2, 2]), "kernel 3×3 (dilated to 5×5) is larger than the padded input 4×9");
    assert_eq!(error([3, 3], [0, 5], [1, 1], [1, 1]), "kernel 0×5 must not be zero");
    assert_eq!(error([3, 3], [1, 1], [1, 0], [1, 1]), "stride 1×0 must not be zero");
    assert_eq!(error([3, 3], [1, 1], [1, 1], [0, 1]), "dilation 0×1 must not be zero");
    let huge = Window::new([3, 3], [3, 3], [1, 1], [usize::MAX / 2 + 1, 0], [1, 1], false).unwrap_err();
    assert!(huge.ends_with("overflow"), "{huge}");
    assert!(error([3, 3], [usize::MAX, 1], [1, 1], [3, 1]).ends_with("overflow"));
}

#[test]
fn windows_without_tap_inside_input_are_found() {
    let mut found = 0;
    for (input, kernel, stride) in (1..8usize).flat_map(|i| (1..5usize).flat_map(move |k| (1..5usize).map(move |s| (i, k, s)))) {
        for (dilation, ceil) in (1..9usize).flat_map(|d| [(d, false), (d, true)]) {
            for padding in 0..=((kernel - 1) * dilation).div_ceil(2) {
                let Ok(window) = Window::new([input; 2], [kernel; 2], [stride; 2], [padding; 2], [dilation; 2], ceil) else { continue };
                let expected = (0..window.output[1]).find(|&at| window.taps(1, at).is_empty());
                assert_eq!(window.only_padding(1), expected, "{window:?}");
                found += usize::from(expected.is_some());
            }
        }
    }
    assert!(found > 100, "{found}");
    let huge = Window::new([1 << 60, 1], [2, 1], [1, 1], [1 << 59, 0], [1 << 60, 1], false).unwrap();
    assert_eq!((huge.only_padding(0), huge.only_padding(1)), (None, None));
}

#[test]
fn irrelevant_distances_are_limited() {
    let window = Window::new([3, 4], [3, 1], [1 << 62, 1 << 62], [1, 0], [1, 1 << 62], false).unwrap();
    assert_eq!((window.output, window.stride, window.dilation), ([1, 1], [5, 4], [1, 1]));
    let two = Window::new([5, 5], [2, 2], [3, 3], [0, 0], [1, 1], false).unwrap();
    assert_eq!((two.output, two.stride), ([2, 2], [3, 3]));
}

#[test]
fn readers_of_positions_are_the_windows_whose_taps_read_them() {
    let mut found = 0;
    for (input, kernel, stride) in (1..14usize).flat_map(|i| (1..5usize).flat_map(move |k| (1..5usize).map(move |s| (i, k, s)))) {
        for (dilation, padding) in (1..7usize).flat_map(|d| (0..3usize).map(move |p| (d, p))) {
            let Ok(window) = Window::new([input; 2], [kernel; 2], [stride; 2], [padding; 2], [dilation; 2], true) else { continue };
            let readers = window.readers(0);
            for position in 0..input {
                let reads = |&at: &usize| window.taps(0, at).any(|tap| window.position(0, at, tap) == position);
                let expected: Vec<usize> = (0..window.output[0]).filter(reads).collect();
                let range = readers.range(position);
                found += expected.len();
                assert_eq!(range.step_by(readers.step()).collect::<Vec<_>>(), expected, "{window:?} at {position}");
            }
        }
    }
    assert!(found > 10_000, "{found}");
}

#[test]
fn taps_are_inside_input() {
    for (input, kernel, stride, padding, dilation, ceil) in
        [(7, 3, 2, 1, 1, true), (9, 3, 1, 2, 2, false), (5, 2, 3, 0, 1, true), (4, 4, 1, 3, 1, false), (6, 2, 3, 1, 4, true)]
    {
        let window = Window::new([input; 2], [kernel; 2], [stride; 2], [padding; 2], [dilation; 2], ceil).unwrap();
        for at in 0..window.output[0] {
            let place = |tap: usize| at * stride + tap * dilation;
            let inside = |&tap: &usize| (padding..input + padding).contains(&place(tap));
            assert!(window.taps(0, at).eq((0..kernel).filter(inside)), "{window:?} at {at}");
            assert!(window.taps(0, at).all(|tap| window.position(0, at, tap) + padding == place(tap)));
        }
    }
}
