//! What work costs, and how a twin cuts its own by it: between two units others may run.
//!
//! Costs are counted in floating-point operations of a matrix product. They need not be exact: they keep units and
//! submits short, whatever the sizes of a model.

use std::ops::Range;

use super::plan::{Plan, Value};

/// The most that a unit costs: 20 ms where a core makes 10 billion operations a second.
pub const UNIT: u64 = 200_000_000;
/// Moving a number by itself (its place is reckoned, it is read, written) takes as long as so many operations.
pub const MOVED: u64 = 8;
/// Decoding a number of a weight.
pub const DECODED: u64 = 4;
/// A number of a softmax or of a gate: an exponential in vector code.
pub const SOFT: u64 = 16;
/// A function of one number, called by itself.
pub const FUNCTION: u64 = 100;

/// Values moved number by number.
pub(crate) fn moved(plan: &Plan, values: &[Value]) -> u64 {
    values.iter().map(|v| plan.shape(*v).iter().product::<usize>() as u64 * MOVED).sum()
}

/// A product of `rows` rows with `cols` rows of `k` weights, and its results moved.
pub(crate) fn product(rows: usize, cols: usize, k: usize) -> u64 {
    (cols * k) as u64 * (2 * rows as u64 + DECODED) + (rows * cols) as u64 * MOVED
}

/// `n` things in parts of nearly equal size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    n: usize,
    parts: usize,
}

impl Cut {
    /// Parts of at most `most` things.
    fn of_at_most(n: usize, most: usize) -> Self {
        Self { n, parts: n.div_ceil(most.max(1)).max(1) }
    }

    /// Parts of `n` things that cost no more than a unit where all of them cost `cost`.
    pub(crate) fn by_cost(n: usize, cost: u64) -> Self {
        let parts = usize::try_from(cost.div_ceil(UNIT)).unwrap_or(usize::MAX);
        Self::of_at_most(n, n / parts.clamp(1, n.max(1)))
    }

    /// How many parts there are.
    pub(crate) fn parts(self) -> usize {
        self.parts
    }

    /// The things of a part.
    pub(crate) fn part(self, i: usize) -> Range<usize> {
        self.n * i / self.parts..self.n * (i + 1) / self.parts
    }
}

/// Axes of a tile.
const ROWS: usize = 0;
const COLS: usize = 1;

/// Which axis of a tile is halved, and down to how many at least; then the next.
type Order = [(usize, usize); 4];

/// Weights are decoded once as long as columns are cut. Never so few rows that they would be multiplied one by one.
pub(crate) const COLUMNS_FIRST: Order = [(COLS, 64), (ROWS, 64), (COLS, 16), (ROWS, 8)];
/// Rows that are gathered anew for other columns.
pub(crate) const ROWS_FIRST: Order = [(ROWS, 64), (COLS, 64), (ROWS, 16), (COLS, 16)];

/// Columns are whole heads.
pub(crate) const HEADS_FIRST: Order = [(COLS, 1), (ROWS, 64), (ROWS, 16), (ROWS, 8)];

/// Results `[rows, cols]` in tiles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles {
    rows: Cut,
    cols: Cut,
}

impl Tiles {
    /// Tiles that cost no more than a unit, where halving in that order can make them so small.
    pub(crate) fn new(rows: usize, cols: usize, order: &Order, cost: impl Fn(usize, usize) -> u64) -> Self {
        let mut tile = [rows, cols];
        for (axis, least) in order {
            while tile[*axis] >= 2 * least && cost(tile[ROWS], tile[COLS]) > UNIT {
                tile[*axis] = tile[*axis].div_ceil(2);
            }
        }
        Self { rows: Cut::of_at_most(rows, tile[ROWS]), cols: Cut::of_at_most(cols, tile[COLS]) }
    }

    /// How many tiles there are.
    pub(crate) fn count(&self) -> usize {
        self.rows.parts * self.cols.parts
    }

    /// Rows and columns of a tile.
    pub(crate) fn tile(&self, i: usize) -> (Range<usize>, Range<usize>) {
        (self.rows.part(i / self.cols.parts), self.cols.part(i % self.cols.parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every result is in one tile, and tiles are of nearly one size.
    fn check(tiles: &Tiles, rows: usize, cols: usize, cost: impl Fn(usize, usize) -> u64) -> u64 {
        let mut seen = vec![false; rows * cols];
        let mut most = 0;
        for i in 0..tiles.count() {
            let (r, c) = tiles.tile(i);
            assert!(!r.is_empty() && !c.is_empty(), "tile {i} of {tiles:?} is empty");
            most = most.max(cost(r.len(), c.len()));
            for row in r {
                seen[row * cols..][c.clone()].iter_mut().for_each(|s| assert!(!std::mem::replace(s, true)));
            }
        }
        assert!(seen.iter().all(|s| *s), "{tiles:?} leaves results out");
        most
    }

    #[test]
    fn tiles_cover_everything_and_cost_little() {
        for order in [&COLUMNS_FIRST, &ROWS_FIRST] {
            for (rows, cols, k) in [(1, 1, 5), (1, 11_008, 4096), (1025, 4096, 1024), (100, 1024, 200_704), (9, 33, 64)]
            {
                let cost = |r, c| product(r, c, k);
                let most = check(&Tiles::new(rows, cols, order, cost), rows, cols, cost);
                assert!(most <= UNIT, "{rows}x{cols}x{k}: {most}");
            }
        }
    }

    #[test]
    fn rows_are_never_left_alone() {
        for rows in 4..400 {
            let tiles = Tiles::new(rows, 64, &COLUMNS_FIRST, |r, c| product(r, c, 1 << 20));
            let least = (0..tiles.count()).map(|i| tiles.tile(i).0.len()).min();
            assert!(least >= Some(4), "{rows}: {tiles:?}");
        }
    }

    #[test]
    fn cuts_follow_the_cost() {
        assert_eq!(Cut::by_cost(10, UNIT).parts(), 1);
        assert_eq!(Cut::by_cost(10, 3 * UNIT).parts(), 4, "parts of at most three");
        assert_eq!(Cut::by_cost(3, u64::MAX).parts(), 3, "no more parts than things");
        assert_eq!(Cut::by_cost(0, 0).part(0), 0..0);
        let cut = Cut::by_cost(10, 3 * UNIT);
        assert_eq!((0..4).map(|i| cut.part(i)).collect::<Vec<_>>(), [0..2, 2..5, 5..7, 7..10]);
    }
}
