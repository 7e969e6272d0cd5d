use super::*;
use crate::optim::{Adam, Sgd};
use crate::tensor::{DType, MemoryFormat};

fn gradients(parameter: &Parameter, gradient: Tensor) -> Gradients {
    let mut gradients = Gradients::default();
    gradients.insert(&parameter.leaf().unwrap(), gradient);
    gradients
}

#[test]
fn memory_formats_of_parameter_gradient_and_state_may_differ() {
    let values = Tensor::randn([3, 4, 2, 5]).cast(DType::F64).unwrap();
    let gradient = Tensor::randn([3, 4, 2, 5]).cast(DType::F64).unwrap();
    let run = |first: MemoryFormat, second: MemoryFormat, of_gradient: MemoryFormat| {
        let parameter = Parameter::new(values.to_format(first).unwrap());
        let mut optimizer = Adam::new([parameter.clone()], 0.1).amsgrad(true);
        optimizer.step(&gradients(&parameter, gradient.to_format(of_gradient).unwrap())).unwrap();
        parameter.set(&parameter.tensor().to_format(second).unwrap()).unwrap();
        optimizer.step(&gradients(&parameter, gradient.to_format(of_gradient).unwrap())).unwrap();
        assert_eq!(parameter.tensor().memory_format(), second);
        parameter.tensor().to_vec::<f64>().unwrap()
    };
    use MemoryFormat::{ChannelsLast, RowMajor};
    let expected = run(RowMajor, RowMajor, RowMajor);
    assert_ne!(expected, values.to_vec::<f64>().unwrap());
    for formats in [(RowMajor, RowMajor, ChannelsLast), (ChannelsLast, RowMajor, RowMajor), (RowMajor, ChannelsLast, ChannelsLast)] {
        assert_eq!(run(formats.0, formats.1, formats.2), expected, "{formats:?}");
    }
}

#[test]
fn update_is_in_place_unless_value_is_shared() {
    let parameter = Parameter::new(Tensor::ones([4]));
    let mut optimizer = Sgd::new([parameter.clone()], 0.5).momentum(0.9);
    let place = |parameter: &Parameter| parameter.leaf().unwrap().data::<f32>().as_ptr();
    let before = place(&parameter);
    optimizer.step(&gradients(&parameter, Tensor::ones([4]))).unwrap();
    assert_eq!(place(&parameter), before);
    let place_of_state = |optimizer: &Sgd| optimizer.groups[0].members[0].slots[0].as_ref().unwrap().data::<f32>().as_ptr();
    let state_before = place_of_state(&optimizer);
    optimizer.step(&gradients(&parameter, Tensor::zeros([4]))).unwrap();
    assert_eq!((place(&parameter), place_of_state(&optimizer)), (before, state_before));
    let (held, snapshot) = (parameter.tensor(), optimizer.state());
    optimizer.step(&gradients(&parameter, Tensor::ones([4]))).unwrap();
    assert_ne!(place(&parameter), before);
    crate::assert_close!(held, Tensor::full_like(&held, 0.05), epsilon = 1e-6);
    assert_eq!(snapshot.get("sgd.param.0.momentum_buffer").unwrap().to_vec::<f32>().unwrap(), [0.9; 4]);
}

#[test]
fn state_follows_a_parameter_into_another_dtype() {
    let parameter = Parameter::new(Tensor::ones([4]));
    let mut optimizer = Sgd::new([parameter.clone()], 0.5).momentum(0.5);
    optimizer.step(&gradients(&parameter, Tensor::ones([4]))).unwrap();
    parameter.set(&parameter.tensor().cast(DType::F64).unwrap()).unwrap();
    optimizer.step(&gradients(&parameter, Tensor::ones([4]))).unwrap();
    assert_eq!(parameter.tensor().to_vec::<f64>().unwrap(), [-0.25; 4]);
}
