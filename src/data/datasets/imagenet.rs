//! The names of ImageNet's classes.

/// The names of ImageNet's 1,000 classes (ILSVRC 2012), label by label, as torchvision has them.
///
/// ```
/// assert_eq!(convnet::data::IMAGENET_CLASSES[281], "tabby");
/// ```
// From `torchvision.models._meta._IMAGENET_CATEGORIES`, torchvision 0.29.
pub static IMAGENET_CLASSES: [&str; 1000] = lines(include_str!("imagenet_classes.txt"));

/// Splits a text into its lines, each of which has an end; a wrong number of lines does not
/// compile.
const fn lines<const N: usize>(mut text: &'static str) -> [&'static str; N] {
    let mut found = [""; N];
    let mut i = 0;
    while i < N {
        let mut end = 0;
        while text.as_bytes()[end] != b'\n' {
            end += 1;
        }
        let (line, rest) = text.split_at(end);
        found[i] = line;
        text = rest.split_at(1).1;
        i += 1;
    }
    assert!(text.is_empty());
    found
}
