//! Merge methods: a tensor that is measured in blocks and computed in parts gives what it gives as a whole, and small cases
//! that can be worked out by hand.

use taskvec_core::numeric::methods::measure::{Measure, Measured, Partial, Pass};
use taskvec_core::numeric::methods::{Boost, Family, Formula, Member, Ready, Recipe, Scratch, Sparse, mask_key};
use taskvec_core::numeric::simd::Isa;

use crate::support::seeded::numbers;

fn family(members: Vec<Member>, election: bool, normalize: bool, rescale: bool) -> Formula {
    Formula::Family(Family { members, election, normalize, rescale, lambda: 1.0 })
}

fn member(sparse: Sparse) -> Member {
    Member { weight: 0.75, sparse }
}

/// Recipes of every kind that is measured, for a base and two models.
fn recipes() -> Vec<Recipe> {
    let largest = member(Sparse::Largest { density: 0.3 });
    let band = member(Sparse::Band { density: 0.4, gamma: 0.1 });
    let drawn = member(Sparse::Drawn { density: 0.5 });
    let ranked = member(Sparse::DrawnByRank { density: 0.5, epsilon: 0.2 });
    let formulas = [
        family(vec![largest, band], true, true, false),
        family(vec![band, largest], false, false, true),
        family(vec![drawn, drawn], true, false, true),
        family(vec![ranked, largest], true, true, true),
        Formula::ModelStock,
        Formula::Karcher { steps: 10, tolerance: 1e-5 },
        Formula::Multislerp { base: true, weights: vec![0.25, 0.75], epsilon: 1e-8 },
        Formula::Nuslerp { base: true, t: 0.25 },
        Formula::Ram { epsilon: 0.2, boost: Some(Boost { r: 0.1, alpha: 0.2, epsilon: 0.2 }) },
        Formula::Sce { share: 0.3 },
    ];
    let by_row = |formula: &Formula| {
        let Formula::Family(family) = formula else { return None };
        family.members.contains(&ranked).then_some(ROW)
    };
    formulas.into_iter().map(|formula| Recipe { row: by_row(&formula), formula, operands: 3 }).collect()
}

const ROW: u64 = 50;
/// Elements of a tensor whose keys are taken together, and of one whose keys are counted.
const SIZES: [u64; 2] = [20 * ROW, 1400 * ROW];

/// A base and two models on a coarse lattice, so that many magnitudes are equal, or with values of many digits.
fn operands(coarse: bool, elements: u64) -> Vec<Vec<f32>> {
    let mut random = numbers(7);
    let step = if coarse { 8.0 } else { 1e6 };
    let mut row = || -> Vec<f32> { (0..elements).map(|_| (random() * step).round() / step).collect() };
    (0..3).map(|_| row()).collect()
}

fn part(rows: &[Vec<f32>], from: u64, to: u64) -> Vec<Vec<f32>> {
    rows.iter().map(|row| row[from as usize..to as usize].to_vec()).collect()
}

/// Measures in blocks of so many elements, whose order in each pass is turned round.
fn measured(recipe: &Recipe, rows: &[Vec<f32>], block: u64, keys: &[[u32; 2]]) -> Measured {
    let elements = rows[0].len() as u64;
    let blocks = elements.div_ceil(block);
    let mut measure = Measure::new(recipe, elements, blocks as usize);
    let mut scratch = Scratch::default();
    while measure.pass().is_some() {
        let probe = measure.probe(recipe, keys).unwrap();
        let visits: Vec<usize> = measure.visits().rev().collect();
        let partials: Vec<_> = visits
            .into_iter()
            .map(|number| {
                let (from, end) = (number as u64 * block, elements.min((number as u64 + 1) * block));
                let (mut at, mut partial) = (from, Partial::default());
                while at < end {
                    let group = recipe.group(from, at, end);
                    let to = group.end.min(end);
                    let within = (at - group.start) as usize..(to - group.start) as usize;
                    let values = part(rows, group.start, group.end);
                    probe.add(Isa::Scalar, &values, group.start, within, &mut scratch, &mut partial);
                    at = to;
                }
                (number, partial)
            })
            .collect();
        for (number, partial) in partials {
            measure.take(recipe, number, partial);
        }
    }
    measure.known()
}

/// The result, computed in parts that begin at these elements.
fn computed(recipe: &Recipe, rows: &[Vec<f32>], known: &Measured, keys: &[[u32; 2]], isa: Isa, step: u64) -> Vec<u32> {
    let elements = rows[0].len() as u64;
    let ready = Ready::new(recipe, elements, known, keys).unwrap_or_else(|why| panic!("{why}"));
    let (mut scratch, mut out) = (Scratch::default(), Vec::new());
    let mut at = 0;
    while at < elements {
        let end = elements.min((at / step + 1) * step);
        let group = recipe.group(at, at, end);
        let to = group.end.min(end);
        let mut result = vec![0.0; (group.end - group.start) as usize];
        ready.compute(isa, &part(rows, group.start, group.end), group.start, &mut scratch, &mut result);
        out.extend(&result[(at - group.start) as usize..(to - group.start) as usize]);
        at = to;
    }
    out.into_iter().map(|value: f32| value.to_bits()).collect()
}

#[test]
fn blocks_and_parts_make_no_difference() {
    for (coarse, elements) in [true, false].into_iter().flat_map(|coarse| SIZES.map(|size| (coarse, size))) {
        let rows = operands(coarse, elements);
        let (blocks, steps) = if elements == SIZES[0] {
            (vec![1, 7, 64, 333], vec![1, 13, 64, 500])
        } else {
            (vec![6001, 33_333], vec![999, 4096])
        };
        for recipe in recipes() {
            let keys = [mask_key(3, 0, "w"), mask_key(3, 1, "w")];
            // Sums of blocks differ in their last place from those of the whole; thresholds do not.
            let whole = measured(&recipe, &rows, elements, &keys);
            for &block in &blocks {
                let found = measured(&recipe, &rows, block, &keys);
                assert_eq!(found.marks, whole.marks, "{recipe:?} in blocks of {block}");
                for (a, b) in found.sums.iter().zip(&whole.sums) {
                    assert!((a - b).abs() <= 1e-9 * b.abs().max(1e-9), "{recipe:?} in blocks of {block}: {a} and {b}");
                }
                assert_eq!(found.sums.len(), whole.sums.len());
            }
            let right = computed(&recipe, &rows, &whole, &keys, Isa::Scalar, elements);
            assert_eq!(right.len() as u64, elements);
            for isa in Isa::available() {
                for &step in &steps {
                    assert!(computed(&recipe, &rows, &whole, &keys, isa, step) == right, "{recipe:?} in {step}");
                }
            }
        }
    }
}

#[test]
fn what_is_measured_survives_a_journal() {
    let rows = operands(true, SIZES[0]);
    for recipe in recipes() {
        let keys = [mask_key(0, 0, "w"), mask_key(0, 1, "w")];
        let known = measured(&recipe, &rows, 64, &keys);
        assert_eq!(Measured::from_bytes(&known.to_bytes()), Some(known.clone()));
        let bytes = known.to_bytes();
        assert_eq!(Measured::from_bytes(&bytes[..bytes.len() - 1]), None);
    }
    assert_eq!(Measured::from_bytes(&[9, 0, 0, 0]), None);
}

/// The result for rows of two elements.
fn result(formula: Formula, rows: &[[f32; 2]]) -> Vec<f32> {
    let recipe = Recipe { formula, operands: rows.len(), row: None };
    let rows: Vec<Vec<f32>> = rows.iter().map(|row| row.to_vec()).collect();
    let mut measure = Measure::new(&recipe, 2, 1);
    let mut scratch = Scratch::default();
    while let Some(pass) = measure.pass() {
        assert!(matches!(pass, Pass::Count(..) | Pass::Locate(..) | Pass::Sums));
        let mut partial = Partial::default();
        let probe = measure.probe(&recipe, &[]).unwrap();
        probe.add(Isa::Scalar, &rows, 0, 0..2, &mut scratch, &mut partial);
        measure.take(&recipe, 0, partial);
    }
    let ready = Ready::new(&recipe, 2, &measure.known(), &[]).unwrap_or_else(|why| panic!("{why}"));
    let mut out = vec![0.0; 2];
    ready.compute(Isa::Scalar, &rows, 0, &mut scratch, &mut out);
    out
}

fn near(a: &[f32], b: [f32; 2]) {
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} and {b:?}");
}

#[test]
fn half_way_on_a_quarter_circle() {
    let half = 0.5_f32.sqrt();
    let (x, y) = ([1.0, 0.0], [0.0, 1.0]);
    near(&result(Formula::Slerp { t: 0.5 }, &[x, y]), [half, half]);
    near(&result(Formula::Nuslerp { base: false, t: 0.5 }, &[x, y]), [half, half]);
    near(&result(Formula::Karcher { steps: 10, tolerance: 1e-9 }, &[x, y]), [half, half]);
    let weights = vec![0.5, 0.5];
    near(&result(Formula::Multislerp { base: false, weights, epsilon: 0.0 }, &[x, y]), [half, half]);
    // The same directions, around a base.
    let (b, x, y) = ([3.0, 4.0], [4.0, 4.0], [3.0, 5.0]);
    near(&result(Formula::Nuslerp { base: true, t: 0.5 }, &[b, x, y]), [3.0 + half, 4.0 + half]);
    // Orthogonal differences: the cosine is 0, and so is t.
    near(&result(Formula::ModelStock, &[b, x, y]), b);
    near(&result(Formula::ModelStock, &[b, x, x]), x);
}

#[test]
fn elected_signs() {
    let member = |weight| Member { weight, sparse: Sparse::All };
    let both = |normalize| family(vec![member(2.0), member(1.0)], true, normalize, false);
    // The first element: 2·1 against −1, plus is elected. The second: equal and opposite, plus too.
    let rows = [[0.0, 0.0], [1.0, 1.0], [-1.0, -2.0]];
    near(&result(both(false), &rows), [2.0, 2.0]);
    near(&result(both(true), &rows), [1.0, 1.0]);
    let none = family(vec![member(2.0), member(-2.0)], false, true, false);
    near(&result(none, &rows), [4.0, 6.0]);
}

#[test]
fn masks_differ_by_seed_model_and_tensor() {
    let keys = [mask_key(0, 0, "w"), mask_key(1, 0, "w"), mask_key(0, 1, "w"), mask_key(0, 0, "v")];
    assert!((0..keys.len()).all(|a| (a + 1..keys.len()).all(|b| keys[a] != keys[b])));
    assert!(keys.iter().all(|key| *key != taskvec_core::numeric::philox::key(0, "w")));
}
