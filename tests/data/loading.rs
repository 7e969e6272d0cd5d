//! Samples of any type, samplers, padding, starting in the middle of an epoch, broken samples.

use std::collections::HashMap;

use convnet::data::{
    Batch, Batches, Boxes, BucketSampler, CenterCrop, Collate, DataLoader, Dataset, DistributedSampler, Image, KeyPoints, Mask, Normalize,
    OnError, RandomSampler, Resize, Rng, Sampler, Sequence, Sequences, SequentialSampler, StratifiedSampler, WeightedSampler,
};
use convnet::{DType, Error, Result, Tensor};

/// A dataset of what a function makes of an index.
struct Made<F>(usize, F);

impl<S, F: Fn(usize) -> Result<S> + Send + Sync> Dataset for Made<F> {
    type Sample = S;

    fn len(&self) -> usize {
        self.0
    }

    fn get(&self, index: usize, _: &mut Rng) -> Result<S> {
        (self.1)(index)
    }

    fn name(&self, index: usize) -> String {
        format!("number {index}")
    }
}

fn first<S: Collate>(count: usize, make: impl Fn(usize) -> Result<S> + Send + Sync + 'static) -> S::Batch {
    DataLoader::new(Made(count, make), count).epoch(0).next().unwrap().unwrap()
}

fn gray(size: [usize; 2], value: u8) -> Image {
    Image::from_bytes([1, size[0], size[1]], vec![value; size[0] * size[1]]).unwrap()
}

#[test]
fn usual_types_of_samples_become_batches() {
    let Batch { images, labels } = first(3, |i| Ok((gray([2, 2], 51 * i as u8), i as f32)));
    assert_eq!((images.shape(), images.to_vec::<f32>().unwrap()[4]), (&[3, 1, 2, 2][..], 0.2));
    assert_eq!(labels.to_vec::<f32>().unwrap(), [0.0, 1.0, 2.0]);
    let batch = first(2, |i| Ok((gray([1, 1], 0), vec![i == 0, true, false])));
    assert_eq!(batch.labels.to_vec::<f32>().unwrap(), [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
    let batch = first(2, |i| Ok((gray([1, 2], 0), Mask::new([1, 2], vec![7, i as u8])?)));
    assert_eq!((batch.labels.shape(), batch.labels.to_vec::<i64>().unwrap()), (&[2, 1, 2][..], vec![7, 0, 7, 1]));
    let batch = first(2, |i| Ok((gray([1, 2], i as u8), gray([1, 2], 255))));
    assert!(batch.images.shape() == batch.labels.shape() && batch.labels.to_vec::<f32>().unwrap() == [1.0; 4]);
    let batch = first(2, |i| Ok((gray([1, 1], 0), Boxes(vec![[0.0, 0.0, 1.0, 1.0]; i]), vec![i as i64; 2])));
    assert_eq!(batch.labels.0.iter().map(|boxes| boxes.shape().to_vec()).collect::<Vec<_>>(), [[0, 4], [1, 4]]);
    assert_eq!(batch.labels.1.to_vec::<i64>().unwrap(), [0, 0, 1, 1]);
    let (Sequences { values, lengths }, labels) = first(3, |i| Ok((Sequence(vec![5i64; i + 1]), i as i64)));
    assert_eq!(values.to_vec::<i64>().unwrap(), [5, 0, 0, 5, 5, 0, 5, 5, 5]);
    assert_eq!((lengths.to_vec::<i64>().unwrap(), labels.to_vec::<i64>().unwrap()), (vec![1, 2, 3], vec![0, 1, 2]));
    let (inputs, targets) = first(2, |_| Ok((Tensor::zeros([3]), Tensor::ones([2, 2]))));
    assert!(inputs.shape() == [2, 3] && targets.shape() == [2, 2, 2]);
    assert_eq!(first(4, |_| Ok(Tensor::full([1], 1.0, DType::F64))).dtype(), DType::F64);
    let ragged = DataLoader::new(Made(2, |i| Ok(vec![0.0f32; i])), 2).epoch(0).next().unwrap().unwrap_err();
    assert!(ragged.to_string().contains("a `Sequence` may have any length"), "{ragged}");
}

#[test]
fn mask_boxes_and_points_move_with_their_image() {
    let sample = |i: usize| {
        let mut image = gray([4, 6], 0);
        image.bytes_mut().unwrap()[6 + 2] = 255;
        let mut classes = vec![0; 24];
        classes[6 + 2] = 3;
        let boxes = Boxes(vec![[2.0, 1.0, 3.0, 2.0], [0.0, 0.0, 6.0, 4.0]]);
        let _ = i;
        Ok((image, Mask::new([4, 6], classes)?, (boxes, KeyPoints(vec![[2.5, 1.5]]))))
    };
    // Pairs of annotations are one part of a sample only by a type of one's own.
    struct All((Image, Mask, (Boxes, KeyPoints)));
    impl Collate for All {
        type Batch = Vec<All>;

        fn collate(samples: Vec<All>) -> Result<Vec<All>> {
            Ok(samples)
        }

        fn parts(&mut self) -> Vec<convnet::data::Part<'_>> {
            let (image, mask, (boxes, points)) = &mut self.0;
            [image.parts(), mask.parts(), boxes.parts(), points.parts()].into_iter().flatten().collect()
        }
    }
    let loader = DataLoader::new(Made(1, move |i| sample(i).map(All)), 1);
    let crop = loader.clone().transform(CenterCrop::new([2, 4])).epoch(0).next().unwrap().unwrap();
    let (image, mask, (boxes, points)) = &crop[0].0;
    assert_eq!(image.bytes().unwrap(), [0, 255, 0, 0, 0, 0, 0, 0]);
    assert_eq!(mask.classes(), [0, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!((boxes, points), (&Boxes(vec![[1.0, 0.0, 2.0, 1.0], [0.0, 0.0, 4.0, 2.0]]), &KeyPoints(vec![[1.5, 0.5]])));
    let large = loader.clone().transform((Resize::new([8, 12]), Normalize::new([0.0], [1.0]))).epoch(0).next().unwrap().unwrap();
    let (image, mask, (boxes, points)) = &large[0].0;
    assert!(image.size() == [8, 12] && mask.classes().iter().filter(|&&class| class == 3).count() == 4);
    assert_eq!((boxes.0[0], points.0[0]), ([4.0, 2.0, 6.0, 4.0], [5.0, 3.0]));
    let outside = loader.transform(CenterCrop::new([6, 6])).epoch(0).next().unwrap().unwrap();
    assert_eq!(outside[0].0.1.classes()[..6], [Mask::IGNORE; 6]);
}

#[test]
fn images_of_several_sizes_are_padded_or_kept_apart() {
    let sizes = |i: usize| [1 + i % 2, 2];
    let sample = move |i: usize| Ok((gray(sizes(i), 255), Mask::new(sizes(i), vec![1; 2 * (1 + i % 2)])?));
    let loader = DataLoader::new(Made(8, sample), 4);
    assert!(loader.epoch(0).next().unwrap().is_err());
    let batch = loader.clone().pad(51.0).epoch(0).next().unwrap().unwrap();
    assert_eq!(batch.images.shape(), [4, 1, 2, 2]);
    assert_eq!(batch.images.to_vec::<f32>().unwrap()[..4], [1.0, 1.0, 0.2, 0.2]);
    assert_eq!(batch.labels.to_vec::<i64>().unwrap()[..4], [1, 1, 255, 255]);
    let buckets = loader.sampler(BucketSampler::new((0..8).map(sizes)));
    let heights: Vec<usize> = buckets.epoch(3).map(|batch| batch.unwrap().images.shape()[2]).collect();
    assert!(heights == [1, 2] || heights == [2, 1], "{heights:?}");
}

fn drawn(sampler: impl Sampler, seed: u64) -> Vec<usize> {
    sampler.indices(&mut Rng::new(seed)).unwrap()
}

#[test]
fn samplers_draw_what_they_promise() {
    let draws = drawn(WeightedSampler::new([1.0, 0.0, 3.0], 40_000), 1);
    let count = |index| draws.iter().filter(|&&i| i == index).count();
    // Binomial with p = 1/4: a deviation of 87 in 40,000; six of them.
    assert!(draws.len() == 40_000 && count(1) == 0 && count(0).abs_diff(10_000) < 520, "{}", count(0));
    let labels: Vec<i64> = (0..1000).map(|i| i64::from(i % 10 == 0)).collect();
    let rare = drawn(WeightedSampler::balanced(&labels), 2).iter().filter(|&&i| labels[i] == 1).count();
    assert!(rare.abs_diff(500) < 95, "{rare}");
    for weights in [vec![f64::NAN], vec![-1.0], vec![0.0, 0.0], vec![], vec![f64::INFINITY]] {
        assert!(matches!(WeightedSampler::new(weights, 1).indices(&mut Rng::new(0)), Err(Error::Argument { .. })));
    }

    let batches = StratifiedSampler::new(&labels).batches(50, false, &mut Rng::new(3)).unwrap();
    let mut seen = vec![0; 1000];
    for number in 0..batches.len() {
        batches.get(number).iter().for_each(|&i| seen[i] += 1);
        let rare = batches.get(number).iter().filter(|&&i| labels[i] == 1).count();
        assert!((4..=6).contains(&rare), "{rare} of a class of which 5 are expected");
    }
    assert!(batches.len() == 20 && seen == [1; 1000]);

    let shares: Vec<Vec<usize>> = (0..3).map(|rank| drawn(DistributedSampler::new(RandomSampler::new(10), rank, 3), 4)).collect();
    let mut counts = HashMap::new();
    shares.iter().flatten().for_each(|&i| *counts.entry(i).or_insert(0) += 1);
    assert!(shares.iter().all(|share| share.len() == 4) && counts.len() == 10 && counts.values().filter(|&&n| n == 2).count() == 2);
    assert!(DistributedSampler::new(SequentialSampler::new(4), 3, 3).indices(&mut Rng::new(0)).is_err());
}

#[test]
fn processes_share_out_the_batches_that_the_inner_sampler_makes() {
    let labels: Vec<i64> = (0..90).map(|i| i64::from(i % 3 == 0)).collect();
    fn batches_of<S: Sampler + 'static>(inner: impl Fn() -> S, size: usize, world: usize) -> Vec<Vec<Vec<usize>>> {
        let drawn = |rank| DistributedSampler::new(inner(), rank, world).batches(size, false, &mut Rng::new(5)).unwrap();
        let lists = |batches: Batches| (0..batches.len()).map(|number| batches.get(number).to_vec()).collect();
        (0..world).map(drawn).map(lists).collect()
    }
    // 60 samples of one size are 9 batches of 7, 30 of the other are 5: the 14 batches are 5 for
    // each of three processes, of which the first process's first one is repeated at the last
    // process.
    let ranks = batches_of(|| BucketSampler::new(labels.iter()), 7, 3);
    assert_eq!(ranks.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 5]);
    assert!(ranks.iter().flatten().all(|batch| batch.iter().all(|&i| labels[i] == labels[batch[0]])), "a batch has one size");
    assert_eq!(ranks[2][4], ranks[0][0]);
    let mut seen = vec![0; 90];
    (0..14).for_each(|number| ranks[number % 3][number / 3].iter().for_each(|&i| seen[i] += 1));
    assert_eq!(seen, [1; 90]);

    let ranks = batches_of(|| StratifiedSampler::new(&labels), 9, 2);
    assert_eq!(ranks.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5]);
    let rare = |batch: &Vec<usize>| batch.iter().filter(|&&i| labels[i] == 1).count();
    assert!(ranks.iter().flatten().all(|batch| (2..=4).contains(&rare(batch))), "3 of a class of which there are a third");
    assert!(DistributedSampler::new(SequentialSampler::new(4), 3, 3).batches(2, false, &mut Rng::new(0)).is_err());
    assert!(DistributedSampler::new(SequentialSampler::new(0), 0, 3).batches(2, false, &mut Rng::new(0)).unwrap().is_empty());
}

#[test]
fn number_of_batches_is_known_without_drawing_an_epoch() {
    // The order of these samples does not fit into memory.
    let endless = DataLoader::new(Made(usize::MAX, |i| Ok(i as i64)), 1000);
    assert_eq!([endless.len(), endless.clone().shuffle(1).drop_last(true).len()], [usize::MAX.div_ceil(1000), usize::MAX / 1000]);
    let labels: Vec<i64> = (0..23).map(|i| i % 3).collect();
    let samplers: [fn(&[i64]) -> Box<dyn Sampler>; 7] = [
        |labels| Box::new(SequentialSampler::new(labels.len())),
        |labels| Box::new(RandomSampler::new(labels.len())),
        |labels| Box::new(WeightedSampler::balanced(labels)),
        |labels| Box::new(StratifiedSampler::new(labels)),
        |labels| Box::new(BucketSampler::new(labels.iter())),
        |labels| Box::new(DistributedSampler::new(RandomSampler::new(labels.len()), 1, 4)),
        |labels| Box::new(DistributedSampler::new(BucketSampler::new(labels.iter()), 2, 3)),
    ];
    for (sampler, batch) in samplers.iter().flat_map(|sampler| [1, 4, 23, 30].map(|batch| (sampler(&labels), batch))) {
        for drop_last in [false, true] {
            let drawn = sampler.batches(batch, drop_last, &mut Rng::new(6)).unwrap().len();
            assert_eq!(sampler.num_batches(batch, drop_last), Some(drawn), "batches of {batch}");
        }
    }
    // Samplers and sizes that make no sense have no batches.
    assert_eq!(WeightedSampler::new([0.0], 5).num_batches(1, false), None);
    assert_eq!(DistributedSampler::new(SequentialSampler::new(4), 3, 3).num_batches(1, false), None);
    assert_eq!(DataLoader::new(Made(5, |i| Ok(i as i64)), 0).len(), 0);
}

#[test]
fn epoch_begins_in_the_middle_without_making_what_comes_before() {
    let make = |i: usize| if i < 4 { Err(Error::msg("too early")) } else { Ok(i as i64) };
    for workers in [0, 2] {
        let loader = DataLoader::new(Made(10, make), 2).workers(workers);
        let rest: Vec<Vec<i64>> = loader.epoch_from(0, 2).map(|batch| batch.unwrap().to_vec().unwrap()).collect();
        assert_eq!(rest, [[4, 5], [6, 7], [8, 9]]);
        assert_eq!(loader.epoch_from(0, 9).count(), 0);
        assert_eq!(loader.epoch_from(0, 5).count(), 0);
    }
    let shuffled = DataLoader::new(Made(10, |i| Ok(i as i64)), 2).shuffle(5);
    let all: Vec<Tensor> = shuffled.epoch(7).map(Result::unwrap).collect();
    let rest: Vec<Tensor> = shuffled.epoch_from(7, 3).map(Result::unwrap).collect();
    assert!(all[3..] == rest[..], "the same batches as in the whole epoch");
}

#[test]
fn broken_sample_fails_or_is_skipped_or_replaced_and_is_named() {
    let make = |i: usize| if i % 4 == 1 || (4..6).contains(&i) { Err(Error::msg("damaged")) } else { Ok(i as i64) };
    let values = |loader: &DataLoader<i64>| -> Vec<Vec<i64>> { loader.epoch(0).map(|batch| batch.unwrap().to_vec().unwrap()).collect() };
    for workers in [0, 2] {
        let loader = DataLoader::new(Made(8, make), 2).workers(workers);
        let error = loader.epoch(0).next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "sample 1 (number 1): damaged");
        let skipping = loader.clone().on_error(OnError::Skip);
        assert_eq!(values(&skipping), [vec![0], vec![2, 3], vec![6, 7]]);
        let mut epoch = skipping.epoch(0);
        let counted: Vec<usize> = std::iter::from_fn(|| epoch.next().map(|batch| batch.map(|_| epoch.samples()).unwrap())).collect();
        assert_eq!(counted, [1, 2, 2]);
        let mut names: Vec<String> = skipping.failures().iter().map(Error::to_string).collect();
        names.sort();
        assert_eq!(names, ["sample 1 (number 1): damaged", "sample 4 (number 4): damaged", "sample 5 (number 5): damaged"]);
        assert!(skipping.failures().is_empty());
        assert_eq!(values(&loader.on_error(OnError::Replace)), [[0, 2], [2, 3], [6, 6], [6, 7]]);
    }
    let hopeless = DataLoader::new(Made(3, |_| Err::<i64, _>(Error::msg("damaged"))), 2).on_error(OnError::Replace);
    assert!(hopeless.epoch(0).next().unwrap().unwrap_err().to_string().contains("no sample of the dataset can be read"));
}

#[test]
fn change_of_a_batch_draws_the_same_with_any_number_of_workers() {
    let noisy = |batch: Tensor, rng: &mut Rng| Ok(batch.to_dtype(DType::F64)?.mul_scalar(rng.unit()));
    let run = |workers| -> Vec<Tensor> {
        DataLoader::new(Made(9, |i| Ok(i as i64)), 2).workers(workers).transform_batch(noisy).epoch(1).map(Result::unwrap).collect()
    };
    assert!(run(0) == run(3) && run(0).len() == 5);
}

#[test]
fn random_tensors_of_a_batch_are_the_same_with_any_number_of_workers_and_after_a_resumption() {
    /// A sample whose batch is a random tensor and its size.
    struct Noise;
    impl Collate for Noise {
        type Batch = Tensor;

        fn collate(samples: Vec<Noise>) -> Result<Tensor> {
            Ok(Tensor::rand([samples.len()]))
        }
    }
    let noisy = |batch: Tensor, _: &mut Rng| batch.add(&Tensor::randn(batch.shape()));
    let run = |workers, seed, epoch, start| -> Vec<Tensor> {
        convnet::manual_seed(workers as u64 + start as u64); // The thread's own generator has no part in it.
        let loader = DataLoader::new(Made(8, |_| Ok(Noise)), 2).seed(seed).workers(workers).transform_batch(noisy);
        loader.epoch_from(epoch, start).map(Result::unwrap).collect()
    };
    let all = run(0, 1, 1, 0);
    assert!(all == run(2, 1, 1, 0) && all[2..] == run(0, 1, 1, 2) && all[2..] == run(2, 1, 1, 2));
    assert!(all[0] != all[1] && all[0] != run(0, 1, 2, 0)[0] && all[0] != run(0, 2, 1, 0)[0], "each batch draws its own");
}
