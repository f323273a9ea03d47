//! Streamed inputs: lanes by themselves, with random schedules, and whole jobs against those on local folders.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::support::elsewhere::{Elsewhere, Family, Fault, manifest, place, places, same_output};
use crate::support::seeded::{MAPPED, noise};
use proptest::prelude::*;
use taskvec_core::Error;
use taskvec_core::control::Control;
use taskvec_core::format::blocks::BLOCK;
use taskvec_core::plan::Plan;
use taskvec_core::plan::inputs::Request;
use taskvec_core::plan::options::{Alpha, Options};
use taskvec_core::source::Io;
use taskvec_core::source::lane::{CHUNK, Lane, REQUEST, Reading};
use taskvec_core::storage::place::Place;
use taskvec_core::verbs::live::{Next, Stream};
use taskvec_core::verbs::write;

/// Ends the test when something stands still; what hangs is left behind.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    let worker = thread::spawn(move || {
        // Nobody listens any more when it took too long.
        let _ = done.send(work());
    });
    match wait.recv_timeout(Duration::from_secs(60)) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it stands still"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(worker.join().unwrap_err()),
    }
}

/// Three files that differ at every place.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let file = |seed| {
        let mut next = noise(seed);
        (0..5 * CHUNK / 4 + seed * 1001).flat_map(|_| (next() as u32).to_le_bytes()).collect()
    };
    (1..4).map(file).collect()
});

type Windows = Vec<Vec<Reading>>;

/// Reads a schedule with so many readers and fetchers. Returns the requests and the buffers.
fn run_lane(windows: Windows, capacity: u64, readers: usize, fetchers: usize, piece: usize) -> (Vec<u64>, usize) {
    let control = Control::default();
    let mut left = windows.clone().into_iter().enumerate();
    // Windows that read nothing may be left out.
    let schedule =
        move || Ok(left.find(|(number, window)| !window.is_empty() || number % 2 == 0).map(|(n, w)| (n as u64, w)));
    let lane = Lane::new(Box::new(schedule), capacity, &control);
    let (requests, next) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..fetchers {
            scope.spawn(|| {
                lane.serve(|shard, range: Range<u64>, take| {
                    requests.lock().unwrap().push(range.end - range.start);
                    FILES[shard][range.start as usize..range.end as usize].chunks(piece).try_for_each(&mut *take)
                })
                .unwrap();
            });
        }
        for _ in 0..readers {
            scope.spawn(|| {
                let mut buffer = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let Some(window) = windows.get(number) else { break };
                    for reading in window {
                        buffer.resize((reading.end - reading.begin) as usize, 0);
                        let here = lane.read(number as u64, reading.shard, reading.begin, &mut buffer).unwrap();
                        assert!(here || buffer.is_empty(), "everything that was scheduled comes through the lane");
                        assert!(buffer == FILES[reading.shard][reading.begin as usize..reading.end as usize]);
                    }
                }
            });
        }
    });
    assert!(lane.buffers() as u64 <= capacity.max(2), "{} buffers for {capacity} chunks", lane.buffers());
    (requests.into_inner().unwrap(), lane.buffers())
}

/// Where ranges go on: nearly always where the last ended, now and then a little before, or anywhere.
fn windows() -> impl Strategy<Value = Windows> {
    let length = prop_oneof![0..3_u64, 1..5000_u64, 900_000..1_200_000_u64, 2_000_000..2_500_000_u64];
    let step = prop_oneof![6 => Just(None), 1 => (0..3_usize, any::<u64>()).prop_map(Some)];
    let range = (length, step, 0..4_u64);
    prop::collection::vec(prop::collection::vec(range, 0..4), 1..14).prop_map(|windows| {
        let (mut shard, mut at) = (0, 0);
        let mut reading = |(length, step, back): (u64, Option<(usize, u64)>, u64)| {
            if let Some((to, place)) = step {
                (shard, at) = (to, place % FILES[to].len() as u64);
            }
            let begin = at.saturating_sub(if step.is_some() { 0 } else { back });
            let end = (begin + length).min(FILES[shard].len() as u64);
            at = end;
            Reading { shard, begin, end }
        };
        windows.into_iter().map(|window| window.into_iter().map(&mut reading).collect()).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_lane_never_stands_still(
        windows in windows(),
        capacity in 0..9_u64,
        readers in 1..5_usize,
        fetchers in 1..5_usize,
        piece in prop_oneof![Just(7001_usize), 60_000..2_000_000_usize],
    ) {
        in_time(move || run_lane(windows, capacity, readers, fetchers, piece));
    }
}

fn reading(begin: u64, end: u64) -> Reading {
    Reading { shard: 0, begin, end }
}

#[test]
fn neighbours_share_a_chunk_and_nothing_is_fetched_twice() {
    let (a, b) = (CHUNK + CHUNK / 2, 3 * CHUNK + 7);
    let (requests, _) = in_time(move || {
        run_lane(vec![vec![reading(5, a)], vec![reading(a - 1, b)], vec![reading(b - 1, b + 9)]], 2, 1, 4, 9999)
    });
    assert_eq!(requests, [b + 9 - 5]);
    // Even where the neighbour begins in the chunk before the last.
    let (requests, _) =
        in_time(|| run_lane(vec![vec![reading(0, CHUNK + 1)], vec![reading(CHUNK - 1, 2 * CHUNK)]], 2, 2, 2, 9999));
    assert_eq!(requests, [2 * CHUNK]);
    // What is needed again much later is fetched again.
    let far = vec![vec![reading(0, 100)], vec![reading(2 * CHUNK, 4 * CHUNK)], vec![reading(0, 100)]];
    assert_eq!(in_time(|| run_lane(far, 3, 1, 1, 9999)).0, [100, 2 * CHUNK, 100]);
}

/// 300 MiB that nobody has to hold: their bytes follow from their place.
#[test]
fn contiguous_bytes_make_few_requests() {
    const BEGIN: u64 = 12_345;
    const TOTAL: u64 = 300 << 20;
    let requests = in_time(|| {
        let control = Control::default();
        let step = 4 * CHUNK;
        let ranges =
            (BEGIN..BEGIN + TOTAL).step_by(step as usize).map(move |at| reading(at, (at + step).min(BEGIN + TOTAL)));
        let mut left = ranges.clone().enumerate();
        let schedule = move || Ok(left.next().map(|(number, range)| (number as u64, vec![range])));
        let lane = Lane::new(Box::new(schedule), 20, &control);
        let requests = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    lane.serve(|_, range: Range<u64>, take| {
                        requests.lock().unwrap().push(range.clone());
                        let mut piece = vec![0; 1 << 18];
                        range.clone().step_by(piece.len()).try_for_each(|at| {
                            let len = (range.end - at).min(piece.len() as u64) as usize;
                            piece[..8].copy_from_slice(&at.to_le_bytes());
                            take(&piece[..len])
                        })
                    })
                    .unwrap();
                });
            }
            let mut buffer = vec![0; step as usize];
            for (number, range) in ranges.enumerate() {
                let buffer = &mut buffer[..(range.end - range.begin) as usize];
                assert!(lane.read(number as u64, 0, range.begin, buffer).unwrap());
            }
        });
        assert!(lane.buffers() <= 20);
        requests.into_inner().unwrap()
    });
    assert_eq!(requests.iter().map(|range| range.end - range.start).sum::<u64>(), TOTAL);
    assert_eq!(requests.len() as u64, TOTAL.div_ceil(REQUEST));
    for range in &requests[..requests.len() - 1] {
        assert!(range.end - range.start >= REQUEST);
    }
}

#[test]
fn what_is_not_scheduled_is_said_to_be_elsewhere() {
    let control = Control::default();
    let mut left = vec![(3, vec![reading(0, 10)])].into_iter();
    let lane = Lane::new(Box::new(move || Ok(left.next())), 2, &control);
    thread::scope(|scope| {
        scope.spawn(|| {
            lane.serve(|_, range: Range<u64>, take| take(&FILES[0][range.start as usize..range.end as usize]))
        });
        for (window, begin, here) in [(1, 0, false), (3, 1, false), (4, 0, false), (3, 0, true), (3, 0, false)] {
            assert_eq!(lane.read(window, 0, begin, &mut [0; 10]).unwrap(), here, "{window} {begin}");
        }
    });
}

/// Donors streamed, the target in its folder.
fn streamed(family: &Family, fault: Option<Fault>) -> ([Place; 3], [Arc<Elsewhere>; 2]) {
    let [target, ..] = family.here();
    let [minuend, subtrahend] = ["minuend", "subtrahend"].map(|role| Arc::new(Elsewhere::of(&family.path(role), true)));
    let minuend = Arc::new(Arc::try_unwrap(minuend).unwrap().with_fault(fault));
    ([target, place(&minuend, &[]), place(&subtrahend, &[])], [minuend, subtrahend])
}

const CLIENT: u64 = 24 << 20;

#[test]
fn a_streamed_run_gives_the_bytes_of_local_folders() {
    let family = Family::new();
    let local = family.local_run();
    let ways = [
        (1, None, Io::Pread),
        (4, Some(48 << 20), Io::Auto),
        (2, Some(128 << 20), MAPPED),
        (3, Some(300 << 20), Io::Direct),
    ];
    for (number, (threads, memory, io)) in ways.into_iter().enumerate() {
        let least = || match family
            .transfer(streamed(&family, None).0, Options { memory: Some(1), ..Options::default() })
        {
            Err(Error::Usage(message)) => {
                let least: u64 = message.split_whitespace().last().unwrap().trim_end_matches("KiB").parse().unwrap();
                least << 10
            }
            other => panic!("{other:?}"),
        };
        let memory = memory.unwrap_or_else(least);
        assert!(memory > CLIENT + 4 * CHUNK);
        let (places, remotes) = streamed(&family, None);
        let options = Options { threads: Some(threads), memory: Some(memory), io, ..Options::default() };
        let plan = family.transfer(places, options).unwrap();
        assert!(plan.budget.planned <= memory && plan.budget.streaming >= CLIENT + 4 * CHUNK, "{:?}", plan.budget);
        remotes.iter().for_each(|remote| remote.forget());
        let out = family.path(&format!("out{number}"));
        write::run(&plan, &out, "card", &Control::default()).unwrap();
        same_output(&local, &out);
        for (remote, input) in remotes.iter().zip(&plan.inputs.list[1..]) {
            let log = remote.log();
            assert!(log.wanted.is_empty() && log.local.is_empty());
            // Tensors are read once, and again where they are compared or, tied, used a second time.
            let tensors: u64 = input.checkpoint.tensors.iter().map(|tensor| tensor.bytes).sum();
            let embedding = input.checkpoint.get("model.embed_tokens.weight").unwrap().bytes;
            let twice = if input.role == "minuend" { 2 } else { 1 };
            assert!(log.moved <= tensors + twice * embedding, "{} {} {tensors}", input.role, log.moved);
        }
        let written = manifest(&out);
        assert_eq!(written["inputs"][1]["streamed"], true);
        assert!(written["inputs"][0].get("streamed").is_none());
        let note = "minuend, subtrahend streamed: the position and length of every range are checked";
        assert!(written["notes"].as_array().unwrap().iter().any(|found| found.as_str().unwrap().starts_with(note)));
    }
}

#[test]
fn a_streamed_extract_and_a_live_one() {
    let family = Family::new();
    let exclude = || vec![regex::Regex::new("lm_head").unwrap()];
    let extract = |minuend: Place, subtrahend: Place, out: &str| {
        let options = Options { exclude: exclude(), ..Options::default() };
        let plan = Plan::new(Request::Extract { minuend, subtrahend }, options, &Control::default()).unwrap();
        write::run(&plan, &family.path(out), "card", &Control::default()).unwrap();
        family.path(out)
    };
    let [_, minuend, subtrahend] = family.here();
    let local = extract(minuend, subtrahend, "local");
    let ([_, minuend, subtrahend], _) = streamed(&family, None);
    same_output(&local, &extract(minuend, subtrahend, "streamed"));

    let collect = |[target, minuend, subtrahend]: [Place; 3]| {
        let request = Request::Transfer { target, minuend, subtrahend, alpha: Alpha::new("0.7", 0.7).unwrap() };
        let plan = Plan::live(request, Options::default(), &Control::default()).unwrap();
        let mut stream = Stream::start(plan, &[true; 5]).unwrap();
        let mut found = vec![Vec::new(); 5];
        loop {
            match stream.next(Duration::from_secs(10)).unwrap() {
                Next::Window(mut packet) => {
                    for part in packet.parts.clone() {
                        let values: &mut Vec<u8> = &mut found[part.tensor as usize];
                        let [first, end] = [part.first, part.first + part.elements].map(|at| 2 * at as usize);
                        values.resize(values.len().max(end), 0);
                        values[first..end].copy_from_slice(&packet.result()[part.offset..part.offset + end - first]);
                    }
                    stream.give_back(packet);
                }
                Next::Waiting => panic!("ten seconds without a window"),
                Next::End(_) => return found,
            }
        }
    };
    assert!(collect(family.here()) == collect(streamed(&family, None).0));
}

#[test]
fn heads_that_differ_are_found_while_streaming() {
    let family = Family::new();
    let path = family.path("minuend/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let plan = family.transfer(family.here(), Options::default()).unwrap();
    let head = plan.inputs.list[1].checkpoint.get("lm_head.weight").unwrap();
    bytes[(head.begin + head.bytes - 1) as usize] ^= 1;
    fs::write(&path, bytes).unwrap();
    let plan = family.transfer(streamed(&family, None).0, Options::default()).unwrap();
    let out = family.path("out");
    let error = write::run(&plan, &out, "card", &Control::default()).unwrap_err();
    assert!(matches!(error, Error::Mismatch(_)) && error.to_string().contains("although config.json ties the two"));
    assert!(!out.exists());
}

#[test]
fn a_fault_at_any_request_is_the_error_and_a_second_run_goes_on() {
    let family = Family::new();
    let local = family.local_run();
    let (places, [minuend, _]) = streamed(&family, None);
    let small = || Options { memory: Some(CLIENT + (20 << 20)), threads: Some(2), ..Options::default() };
    let plan = family.transfer(places, small()).unwrap();
    let planning = minuend.log().fetched.len();
    write::run(&plan, &family.path("whole"), "card", &Control::default()).unwrap();
    let all = minuend.log().fetched.len();
    assert!(all >= planning + 4, "two for the comparison and some for the windows: {:?}", minuend.log());
    let mut went_on = 0;
    for request in planning..all {
        for corrupt in [false, true] {
            let family = Family::new();
            let out = family.path("out");
            let (places, _) = streamed(&family, Some(Fault { request, after: 700_000, corrupt }));
            let plan = family.transfer(places, small()).unwrap();
            let begun = Instant::now();
            match write::run(&plan, &out, "card", &Control::default()).unwrap_err() {
                Error::Remote { source, .. } => assert_eq!(source.to_string(), format!("request {request} failed")),
                error => panic!("{error:?}"),
            }
            assert!(begun.elapsed() < Duration::from_secs(20));
            if corrupt {
                assert!(!out.exists());
                continue;
            }
            let left: Vec<_> =
                fs::read_dir(&out).into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
            assert!(left.is_empty() || left == [".taskvec-partial"], "{left:?}");
            let (places, [_, subtrahend]) = streamed(&family, None);
            let plan = family.transfer(places, small()).unwrap();
            subtrahend.forget();
            let done = write::run(&plan, &out, "card", &Control::default()).unwrap();
            same_output(&local, &out);
            let resumed = done["engine"]["resumed_bytes"].as_u64().unwrap();
            if resumed > 0 {
                went_on += 1;
                // F32: two bytes of it for each of the output. The last block of a file is shorter than it counts.
                let short = plan.layout.blocks() * BLOCK - plan.layout.bytes();
                let left = plan.layout.bytes() - resumed + short;
                assert!(subtrahend.log().moved <= 2 * left, "{} {left}", subtrahend.log().moved);
            }
        }
    }
    assert!(went_on > 0);
}

#[test]
fn a_streamed_run_that_is_held_up_stops_within_a_second() {
    let family = Family::new();
    let (places, [minuend, subtrahend]) = streamed(&family, None);
    let plan = family.transfer(places, Options::default()).unwrap();
    subtrahend.stalled.store(true, Ordering::SeqCst);
    let (out, control) = (family.path("out"), Control::default());
    thread::scope(|scope| {
        let job = scope.spawn(|| write::run(&plan, &out, "card", &control));
        subtrahend.until_waiting(1);
        let stopped = Instant::now();
        control.stop();
        assert!(matches!(job.join().unwrap().unwrap_err(), Error::Cancelled));
        assert!(stopped.elapsed() < Duration::from_secs(1));
    });
    assert!(minuend.log().wanted.is_empty());
}

#[test]
fn a_target_may_arrive_while_donors_are_streamed() {
    let family = Family::new();
    let remotes = family.remotes([false, true, true]);
    let plan = family.transfer(places(&remotes), Options::default()).unwrap();
    let out = family.path("out");
    write::run(&plan, &out, "card", &Control::default()).unwrap();
    same_output(&family.local_run(), &out);
    assert_eq!(remotes[0].log().wanted.len(), 4);
}
