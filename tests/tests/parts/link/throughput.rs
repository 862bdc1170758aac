//! How fast one channel is, by hand.

use std::time::Instant;

use migrated::link::Label;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ends::{channel, pair};

/// By hand, in a release build: `cargo test --release -p tests --test link throughput -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a release build on a quiet machine"]
async fn throughput_of_one_data_channel() {
    const TOTAL: u64 = 4 << 30;
    let pair = pair().await;
    let (mut near, mut far) = channel(&pair, Label::Disk(0)).await;
    let start = Instant::now();
    let writing = tokio::spawn(async move {
        let block = vec![7; 256 << 10];
        for _ in 0..TOTAL / block.len() as u64 {
            near.write_all(&block).await.unwrap();
        }
        near.shutdown().await.unwrap();
    });
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    while let Ok(count @ 1..) = far.read(&mut buffer).await {
        total += count as u64;
    }
    writing.await.unwrap();
    let rate = total as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("{rate:.0} MB/s; {:?}", pair.near.status());
    assert_eq!(total, TOTAL);
}
