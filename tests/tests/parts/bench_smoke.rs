//! The benchmark runs: its figures are for `make bench`, but a broken one is noticed here.

use tests::lab::Lab;
use tests::program::Tool;
use tests::require;

#[test]
fn the_comparison_runs_from_end_to_end_in_small() {
    require!(Lab::with(&["qemu-nbd", "nbdkit", "qemu-img"]));
    let said = Tool::new(env!("CARGO_BIN_EXE_bench")).args(["--quick", "--only", "comparison"]).run();
    for title in ["### Wall time", "### CPU time of the server", "### Second opinion"] {
        assert!(said.contains(title), "{said}");
    }
    assert_eq!(said.matches("4 KiB random").count(), 12, "two tables with six such loads: {said}");
}
