//! Metrics that a run observes, callbacks that are added or log, notes, auxiliary heads.

use super::*;

use convnet::Tensor;

#[test]
fn metric_that_does_not_exist_costs_no_epoch() {
    let run = |prepare: &dyn for<'a> Fn(Trainer<'a, Sequential>, Checkpoints) -> Trainer<'a, Sequential>, dir: &Path| {
        let (model, (train, valid)) = (network(), loaders());
        let (memory, seen) = (Memory::default(), Arc::default());
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.05).momentum(0.9)).epochs(2).resume(true).progress(false);
        let trainer = trainer.callback(Seen(Arc::clone(&seen))).log(memory.clone());
        let report = prepare(trainer, Checkpoints::in_dir(dir).every_epochs(2)).fit(&train, &valid, classify);
        let rows = memory.0.lock().unwrap().iter().filter(|(_, name, _)| name == "valid/accuracy").count();
        let seen = seen.lock().unwrap().clone();
        (report, rows, seen, model.state_dict())
    };
    let whole = tempfile::tempdir().unwrap();
    let (_, _, _, expected) = run(&|trainer, checkpoints| trainer.checkpoints(checkpoints), whole.path());
    let wrong: [&dyn for<'a> Fn(Trainer<'a, Sequential>, Checkpoints) -> Trainer<'a, Sequential>; 3] = [
        &|trainer, checkpoints| trainer.checkpoints(checkpoints).callback(EarlyStopping::on("valid/acc").patience(9)),
        &|trainer, checkpoints| trainer.checkpoints(checkpoints.keep_best("valid/acc")),
        &|trainer, checkpoints| {
            trainer.checkpoints(checkpoints).schedule(ReduceLrOnPlateau::new(), Every::Epoch).schedule_metric("valid/acc")
        },
    ];
    for wrong in wrong {
        let dir = tempfile::tempdir().unwrap();
        let (report, rows, seen, _) = run(wrong, dir.path());
        let message = report.unwrap_err().to_string();
        assert!(message.contains("no metric \"valid/acc\"") && message.contains("valid/accuracy"), "{message}");
        let left = Checkpoints::in_dir(dir.path()).latest().unwrap().expect("the epoch is not lost");
        assert_eq!(["step", "epoch", "batch"].map(|name| left.count(name).unwrap()), [23, 1, 0]);
        assert_eq!((rows, seen), (1, vec![(0, 23)]), "its row, and the callback that needs no such metric");
        // The same program goes on, and does not end as if nothing were wrong.
        for _ in 0..2 {
            assert!(run(wrong, dir.path()).0.unwrap_err().to_string().contains("no metric \"valid/acc\""));
        }
        let dir = tempfile::tempdir().unwrap();
        run(wrong, dir.path()).0.unwrap_err();
        // Without the wrong name, the run goes on with the second epoch.
        let (report, rows, seen, state) = run(&|trainer, checkpoints| trainer.checkpoints(checkpoints), dir.path());
        assert_eq!((report.unwrap().epochs.len(), rows, seen), (2, 1, vec![(1, 46)]));
        assert!(state.difference(&expected).unwrap().is_empty());
    }
    // The epoch that failed is a candidate for the best one.
    let dir = tempfile::tempdir().unwrap();
    let first = |name: &'static str| {
        let (model, (train, valid)) = (network(), loaders());
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.05)).epochs(1).resume(true).progress(false);
        trainer.checkpoints(Checkpoints::in_dir(dir.path()).keep_best(name)).fit(&train, &valid, classify)
    };
    first("valid/acc").unwrap_err();
    assert!(!Checkpoints::in_dir(dir.path()).best_path().exists());
    first("valid/accuracy").unwrap();
    assert!(Checkpoints::in_dir(dir.path()).best_path().exists());
}

#[test]
fn state_of_another_callback_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = |epochs, watched: bool| {
        let (model, (train, valid)) = (network(), loaders());
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.05)).epochs(epochs).resume(true).progress(false);
        let trainer = trainer.checkpoints(Checkpoints::in_dir(dir.path()));
        let trainer = if watched { trainer.callback(Seen(Arc::default())) } else { trainer };
        trainer.callback(EarlyStopping::on("valid/loss").patience(9)).fit(&train, &valid, classify)
    };
    run(1, false).unwrap();
    assert!(run(2, true).unwrap_err().to_string().contains("the state of another callback"));
    run(2, false).unwrap();
}

#[test]
fn metric_of_a_validation_without_data_is_refused_at_the_start() {
    let (model, (train, valid)) = (network(), loaders());
    let before = model.state_dict();
    let empty = DataLoader::new(convnet::data::Subset::new(Digits::test(), []).unwrap(), 64);
    let no_data: Option<&DataLoader> = None;
    for valid in [no_data, Some(&empty)] {
        let trainer = || Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).progress(false);
        let dir = tempfile::tempdir().unwrap();
        for wrong in [
            trainer().callback(EarlyStopping::on("valid/loss")),
            trainer().checkpoints(Checkpoints::in_dir(dir.path()).keep_best("valid/accuracy")),
            trainer().schedule(ReduceLrOnPlateau::new(), Every::Epoch).schedule_metric("valid/loss"),
        ] {
            let message = wrong.fit(&train, valid, classify).unwrap_err().to_string();
            assert!(message.contains("no data to validate on") && message.contains("valid/"), "{message}");
        }
    }
    assert!(model.state_dict().difference(&before).unwrap().is_empty(), "no step was made");
    let observing = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).callback(EarlyStopping::on("train/loss")).progress(false);
    assert_eq!(observing.fit(&train, None, classify).unwrap().steps, 23);
    let observing = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).callback(EarlyStopping::on("valid/loss")).progress(false);
    assert_eq!(observing.fit(&train, &valid, classify).unwrap().steps, 23);
}

#[test]
fn callback_with_a_state_can_be_added_to_a_run_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let run = |epochs, stopping: Option<EarlyStopping>| {
        let (model, (train, valid)) = (network(), loaders());
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.05)).epochs(epochs).resume(true).progress(false);
        let trainer = trainer.checkpoints(Checkpoints::in_dir(dir.path()));
        let trainer = match stopping {
            Some(stopping) => trainer.callback(stopping),
            None => trainer,
        };
        trainer.fit(&train, &valid, classify)
    };
    run(1, None).unwrap();
    // With a step of 100 no epoch is an improvement after the first that it sees.
    let stopping = || Some(EarlyStopping::on("valid/loss").min_delta(100.0).patience(2));
    let report = run(6, stopping()).unwrap();
    assert_eq!((report.epochs.len(), report.ending), (4, Ending::Stopped("valid/loss has not improved in 2 epochs".into())));
    // From then on its state is in the checkpoints.
    let latest = Checkpoints::in_dir(dir.path()).latest().unwrap().unwrap();
    assert_eq!(latest.section("callback0").unwrap().try_get("waited").unwrap().item::<i64>().unwrap(), 2);
}

/// Logs the step from each place where a callback is called.
struct Logs;

impl Callback for Logs {
    fn before_step(&mut self, run: &mut RunState<'_>, _: &mut Gradients) -> Result<()> {
        let step = run.step as f64;
        run.log(&[("before", LogValue::Scalar(step))])
    }

    fn after_step(&mut self, run: &mut RunState<'_>) -> Result<()> {
        let step = run.step as f64;
        run.log(&[("after", LogValue::Scalar(step))])
    }

    fn after_epoch(&mut self, run: &mut RunState<'_>) -> Result<()> {
        let weight = run.model.named_parameters()[0].1.tensor();
        let picture = Image::new(1, 2, 3)?;
        run.log(&[("weights", LogValue::Histogram(&weight)), ("picture", LogValue::Image(&picture))])
    }
}

/// Keeps the kinds of values that it gets.
#[derive(Clone, Default)]
struct Kinds(Arc<Mutex<Vec<(u64, String)>>>);

impl Logger for Kinds {
    fn log(&mut self, step: u64, values: &[(&str, LogValue<'_>)]) -> Result<()> {
        let others = values.iter().filter(|(_, value)| !matches!(value, LogValue::Scalar(_)));
        self.0.lock().unwrap().extend(others.map(|(name, value)| (step, format!("{name}: {value:?}"))));
        Ok(())
    }

    fn rewind(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
}

#[test]
fn callbacks_log_once_for_each_step_also_when_the_run_is_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let (memory, kinds) = (Memory::default(), Kinds::default());
    for stop in [7, u64::MAX] {
        let (model, (train, valid)) = (network(), loaders());
        let flag = Arc::new(AtomicBool::new(false));
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.05)).resume(true).progress(false);
        let trainer = trainer.checkpoints(Checkpoints::in_dir(dir.path())).log(memory.clone()).log(kinds.clone()).log_every(0);
        let trainer = trainer.callback(Logs).stop_flag(Arc::clone(&flag)).callback(StopAt(stop, flag));
        trainer.fit(&train, &valid, classify).unwrap();
    }
    let rows = memory.0.lock().unwrap();
    let of = |wanted: &str| -> Vec<(u64, f64)> {
        rows.iter().filter(|(_, name, _)| name == wanted).map(|&(step, _, value)| (step, value)).collect()
    };
    assert_eq!(of("before"), (1..=23).map(|step| (step, step as f64 - 1.0)).collect::<Vec<_>>());
    assert_eq!(of("after"), (1..=23).map(|step| (step, step as f64)).collect::<Vec<_>>());
    let kinds = kinds.0.lock().unwrap();
    assert_eq!(*kinds, [(23, "weights: histogram of [4, 1, 3, 3]".to_string()), (23, "picture: image [1, 2, 3]".to_string())]);
}

#[test]
fn notes_are_in_every_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (model, (train, valid)) = (network(), loaders());
    let trainer = || Trainer::new(&model, Sgd::new(model.parameters(), 0.05)).progress(false);
    let checkpoints = || Checkpoints::in_dir(dir.path()).keep_best("valid/loss");
    trainer().checkpoints(checkpoints()).note("mean", vec![0.5, 0.25]).fit(&train, &valid, classify).unwrap();
    for checkpoint in [checkpoints().best(), checkpoints().latest()] {
        let checkpoint = checkpoint.unwrap().unwrap();
        assert_eq!(checkpoint.get("mean"), Some(&vec![0.5, 0.25].into()));
        assert_eq!(checkpoint.count("step").unwrap(), 23);
    }
    let message = trainer().note("step", 7).fit(&train, &valid, classify).unwrap_err().to_string();
    assert!(message.contains("the run itself notes `step`"), "{message}");
}

/// A body with a head, and another one in the middle that only the training uses.
struct TwoHeads {
    body: Linear,
    dropout: Dropout,
    aux: Linear,
    head: Linear,
}

impl Module for TwoHeads {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.heads(x).map(|[logits, _]| logits)
    }

    convnet::visit_fields!(body, dropout, aux, head);
}

impl TwoHeads {
    fn heads(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        let middle = self.dropout.forward(&self.body.forward(&x.flatten(1, -1)?)?.relu())?;
        Ok([self.head.forward(&middle)?, self.aux.forward(&middle)?])
    }
}

#[test]
fn auxiliary_head_is_trained_by_its_part_of_the_loss() {
    convnet::manual_seed(4);
    let model = TwoHeads { body: Linear::new(64, 32), dropout: Dropout::new(0.1), aux: Linear::new(32, 10), head: Linear::new(32, 10) };
    let (train, valid) = (DataLoader::new(Digits::train(), 64).shuffle(3), DataLoader::new(Digits::test(), 128));
    let trainer = Trainer::new(&model, Adam::new(model.parameters(), 0.01)).epochs(4).progress(false);
    let report = trainer.fit(&train, &valid, |model, Batch { images, labels }| {
        let [logits, aux] = model.heads(images)?;
        let mut loss = logits.cross_entropy(labels)?;
        if model.is_training() {
            loss = loss.add(&aux.cross_entropy(labels)?.mul_scalar(0.3))?;
        }
        Ok(Step::new(loss).metric("accuracy", accuracy(&logits, labels)?).metric("aux", accuracy(&aux, labels)?))
    });
    let last = report.unwrap().last().unwrap().clone();
    // Guessing gives 0.1: both heads have learnt, and the validated loss is that of one.
    assert!(last["valid/accuracy"] > 0.8 && last["valid/aux"] > 0.8, "{last:?}");
    let alone = convnet::train::evaluate(&model, &valid).unwrap();
    // The same numbers, added in another order.
    assert!((last["valid/loss"] - alone.loss()).abs() < 1e-9);
}
