//! PageRank over files.

/// The number of rounds. More rounds rarely change the order of the top files.
const ROUNDS: usize = 12;
/// The share of a file's rank that it passes to the files whose definitions it uses.
const DAMPING: f32 = 0.85;

/// The maximum number of edges. This many edges take 60 MB.
const MAX_EDGES: usize = 5_000_000;

/// Files and the weighted edges between them.
#[derive(Debug)]
pub(crate) struct Graph {
    files: usize,
    /// From, to and weight.
    edges: Vec<(u32, u32, f32)>,
}

impl Graph {
    pub(crate) fn new(files: usize) -> Self {
        Self { files, edges: Vec::new() }
    }

    /// Returns whether more edges would take too much memory.
    pub(crate) fn is_full(&self) -> bool {
        self.edges.len() >= MAX_EDGES
    }

    pub(crate) fn add(&mut self, from: u32, to: u32, weight: f32) {
        if (from as usize) < self.files && (to as usize) < self.files {
            self.edges.push((from, to, weight));
        }
    }

    /// Returns the rank of each file. `start` contains the weights used to distribute the rank that
    /// is not passed along edges in each round. The ranks add up to 1.
    pub(crate) fn rank(&self, start: &[f32]) -> Vec<f32> {
        let total: f32 = start.iter().sum();
        let start: Vec<f32> = match total > 0.0 {
            true => start.iter().map(|s| s / total).collect(),
            false => vec![1.0 / self.files.max(1) as f32; self.files],
        };
        let mut out = vec![0.0_f32; self.files];
        for (from, _, weight) in &self.edges {
            out[*from as usize] += weight;
        }
        let mut rank = start.clone();
        for _ in 0..ROUNDS {
            let mut next = vec![0.0_f32; self.files];
            for (from, to, weight) in &self.edges {
                next[*to as usize] += rank[*from as usize] * weight / out[*from as usize];
            }
            // Rank that is not passed along edges, such as that of files without outgoing edges, is
            // distributed according to `start`.
            let passed: f32 = next.iter().sum();
            let back = 1.0 - DAMPING * passed;
            for (next, start) in next.iter_mut().zip(&start) {
                *next = DAMPING * *next + back * start;
            }
            rank = next;
        }
        rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_others_use_ranks_first() {
        let mut graph = Graph::new(4);
        for from in [0, 1, 2] {
            graph.add(from, 3, 1.0);
        }
        graph.add(3, 2, 1.0);
        let rank = graph.rank(&[0.0; 4]);
        assert!(rank[3] > rank[0] && rank[2] > rank[0], "{rank:?}");
        assert!((rank.iter().sum::<f32>() - 1.0).abs() < 1e-3, "{rank:?}");
        let rank = graph.rank(&[1.0, 0.0, 0.0, 0.0]);
        assert!(rank[1] == 0.0 && rank[0] > 0.0, "nothing leads to file 1: {rank:?}");
    }

    #[test]
    fn an_empty_graph_has_no_ranks() {
        assert!(Graph::new(0).rank(&[]).is_empty());
    }
}
