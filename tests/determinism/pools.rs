//! The same bits in any rayon pool.

use rayon::ThreadPool;
use rayon::prelude::*;

use super::{assert_same, step, step_here, threads_for_me, train, train_here};

fn pool(threads: usize) -> ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

#[test]
fn training_in_pools_one_by_one_and_at_the_same_time_gives_the_same_bits() {
    let _turn = threads_for_me();
    let expected = train(1, 0).unwrap();
    for threads in [1, 2, 3, 8] {
        assert_same(&format!("a pool of {threads}"), &pool(threads).install(|| train_here(1)).unwrap(), &expected);
    }
    convnet::set_num_threads(2).unwrap();
    let pools = [pool(2), pool(3)];
    std::thread::scope(|scope| {
        let in_pools = pools.each_ref().map(|pool| scope.spawn(|| pool.install(|| train_here(1))));
        assert_same("outside, beside two pools", &train_here(1).unwrap(), &expected);
        for (i, found) in in_pools.into_iter().enumerate() {
            assert_same(&format!("pool {i} of two at a time"), &found.join().unwrap().unwrap(), &expected);
        }
    });
}

#[test]
fn steps_inside_parallel_iterators_give_the_same_bits() {
    let _turn = threads_for_me();
    let expected = step("mobilenet_v3_small", 1).unwrap();
    for threads in [1, 2, 5] {
        let found: Vec<_> = pool(threads).install(|| (0..4).into_par_iter().map(|_| step_here("mobilenet_v3_small").unwrap()).collect());
        found.iter().for_each(|found| assert_same(&format!("a parallel iterator on {threads}"), found, &expected));
    }
    // In rayon's global pool, and from threads outside any while others compute there.
    convnet::set_num_threads(0).unwrap();
    let both = || step_here("mobilenet_v3_small").unwrap();
    std::thread::scope(|scope| {
        let outside = scope.spawn(both);
        let found: Vec<_> = (0..3).into_par_iter().map(|_| both()).collect();
        found.iter().for_each(|found| assert_same("a parallel iterator on the global pool", found, &expected));
        assert_same("outside any pool", &outside.join().unwrap(), &expected);
    });
}
