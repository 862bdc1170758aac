//! Whole migrations: real guests between two sites over a real WAN, with users who must not notice.
//!
//! What the other tests of a guest that moves take for granted is in `parts/world.rs`: that no process of one site can
//! open a file of the other (S0-14), and that the sites share no layer 2 (S0-15).

use std::process::ExitCode;
use std::time::Duration;

use migrated::report::Report;
use tests::cases;
use tests::hosts::settings::Settings;
use tests::schedule;
use tests::wan::WanProfile;
use tests::world::Plan;

mod wan;
mod kinds;
mod cancelled;
mod bandwidth;
mod refused;
mod reserved;
mod strangers;
mod failures;
mod faults;
mod in_doubt;
mod restarts;
mod itself;
mod operator;
mod afterwards;
mod back_and_forth;
mod home;
mod planes;
mod shown;
mod looked;
mod same_network;
mod cuts;
mod ways;
mod paused;
mod methods;
mod disks;
mod qemu_deaths;
mod qemu_versions;
mod random;
mod clocks;
mod dns;
mod kvm;
mod bench;
mod other_versions;

/// The words of the main job.
const MAIN_JOB: [&str; 3] = ["--wan", "web", "site-b"];

/// A rate at which each phase lasts long enough to be met in it.
const SLOWLY: [&str; 2] = ["--bandwidth", "300kB"];

/// A world with links like this.
fn over(profile: WanProfile) -> Plan {
    Plan { profile: Some(profile), ..Plan::default() }
}

/// Both hosts have compared every leaf of so many disks, at the seal or before it, and nothing was written since.
#[track_caller]
fn insist_on_verified(report: &Report, disks: usize) {
    assert_eq!(report.disks.len(), disks);
    for disk in &report.disks {
        let compared = disk.verified_leaves.zip(disk.verified_before_leaves);
        let (at_the_seal, before) = compared.expect("its blockd has said what it compared");
        assert_eq!(at_the_seal + before, disk.size_bytes.div_ceil(64 << 10), "{disk:?}");
    }
}

/// What a move says that disks and memory sent went over its own links, and nothing of an earlier move did.
#[track_caller]
fn insist_on_its_own_bytes(report: &Report) {
    let disks: u64 = report.disks.iter().map(|disk| disk.sent_bytes).sum();
    let (carried, link) = (disks + report.ram.sent_bytes, report.link.sent_bytes);
    assert!(carried <= link, "{carried} bytes in {link}: {report:?}");
}

/// A long, lossy link on which a move is slow for as long as it is told to be, and fast when all has been tried on it.
fn long_lossy_link() -> Plan {
    over(WanProfile::new(100, Duration::from_millis(100)).lossy(0.5))
}

/// What a move over such a link is told first: it is met in each phase.
const AT_FIRST: [&str; 2] = ["--bandwidth", "2500kB"];

/// Memory begins at once, whatever is left of the disks: so that a test need not wait for them.
fn memory_at_once() -> Settings {
    Settings { migration: "ram_start_ms = 3600000".to_owned(), ..Settings::default() }
}

/// The longest first. What is only in the soak has its property proven elsewhere in every run: by the simulation of whole
/// migrations, by the model of the protocol, or by the tests of one part.
fn main() -> ExitCode {
    schedule::main(&cases![
        ways::a_move_survives_the_death_of_either_network_while_memory_goes_and_data_leaves_the_control_network_again,
        cuts::a_move_survives_a_flapping_link_and_another_address_of_its_source,
        cuts::a_move_survives_cuts_half_open_links_and_a_nat_that_forgets_while_the_disk_and_while_the_memory_goes,
        back_and_forth::a_guest_that_moves_to_and_fro_leaves_nothing_behind_and_loses_nothing,
        qemu_deaths::a_guest_whose_qemu_dies_at_the_source_is_off_there_unless_it_was_handed_over,
        disks::a_destination_whose_disk_fails_is_waited_for_but_by_no_guest_that_stands_still,
        in_doubt::a_guest_in_doubt_stands_still_until_the_journal_of_the_destination_answers,
        wan::a_guest_moves_over_a_thin_long_lossy_link_and_its_sessions_live,
        qemu_deaths::a_guest_whose_qemu_dies_is_handed_back_before_it_was_started_and_off_at_its_new_host_after_that,
        disks::a_guest_leaves_a_slow_disk_of_which_some_reads_fail,
        methods::a_guest_moves_through_a_program_and_the_end_of_the_program_is_a_stall,
        qemu_versions::a_guest_moves_to_a_newer_qemu_and_back,
        disks::a_guest_whose_own_disk_fails_while_it_moves_stays_where_it_is_and_lies_to_nobody_about_its_writes,
        disks::a_destination_that_runs_full_says_so_and_the_guest_stays_until_there_is_room,
        dns::a_name_leads_to_the_new_site_after_the_guest_has_answered_there,
        paused::cut_off_while_it_is_paused_a_guest_goes_on_at_a_cancel_and_the_destination_is_clean_when_the_link_is_back,
        ways::a_move_goes_on_over_the_control_network_when_the_data_network_dies_for_good_while_the_disk_goes,
        ways::a_move_survives_another_address_of_its_destination,
        ways::link_and_tunnel_work_over_a_way_for_smaller_packets_and_a_session_with_large_ones_goes_on,
        disks::with_room_in_time_a_move_goes_on_and_full_state_folders_stop_none_that_has_begun,
        itself::a_guest_that_restarts_itself_moves_and_one_that_switches_itself_off_is_off_where_it_was,
        faults::what_dies_before_the_handover_is_a_stall_and_the_guest_moves,
        qemu_versions::a_guest_moves_between_two_newer_qemus,
        restarts::daemons_that_are_killed_and_started_again_move_the_guest_all_the_same,
        home::a_guest_that_comes_home_after_both_daemons_began_anew_leaves_no_tunnel_and_no_address,
        shown::a_move_in_the_background_is_shown_while_it_runs_and_its_report_is_kept,
        methods::a_guest_that_is_suspended_for_its_move_goes_on_where_the_move_ends,
        methods::a_move_that_takes_too_long_is_given_up_and_the_next_one_is_not_in_vain,
        afterwards::a_disk_that_was_left_is_fenced_and_nothing_starts_its_guest_there,
        wan::a_guest_moves_over_a_fast_link_and_neither_its_users_nor_its_neighbour_notice,
        planes::data_and_control_have_their_own_networks_and_nothing_of_the_guest_is_readable_on_either,
        kinds::a_paused_guest_arrives_paused_with_the_very_same_disk_and_goes_on_there,
        kinds::a_guest_with_two_disks_moves_with_both,
        faults::a_source_that_loses_power_has_its_guest_afterwards_and_starts_it_from_its_disk,
        reserved::of_two_guests_that_want_the_same_room_one_gets_it_until_it_is_given_back,
        dns::a_name_that_no_zone_holds_is_refused_before_anything_moves,
        operator::what_is_done_to_qemu_behind_the_daemons_back_while_memory_goes_ends_as_promised,
        bench::the_course_wan20_is_measured_from_end_to_end_in_small,
        bench::the_course_lan100_is_measured_from_end_to_end_in_small,
        bench::the_course_bradford_is_measured_from_end_to_end_in_small,
        kvm::a_guest_under_kvm_moves_and_its_memory_and_its_disk_go_on,
        same_network::a_guest_with_a_shared_disk_moves_within_one_layer_2_and_nothing_of_its_disk_is_copied,
        failures::when_the_destinations_qemu_dies_the_guest_runs_on_and_the_next_attempt_moves_it,
        kinds::a_guest_without_an_address_of_ours_moves_without_wan_and_without_a_tunnel,
        refused::a_move_that_makes_no_sense_is_refused_in_clear_words,
        refused::a_destination_without_room_refuses_at_once_with_every_reason_and_nothing_is_touched,
        strangers::a_user_who_is_not_the_daemons_and_a_host_that_is_not_paired_are_refused_and_logged_and_change_nothing,
        ; soak:
        random::soak_whatever_is_hit_by_even_seeds_one_side_has_the_guest_and_it_can_be_moved_again,
        random::soak_whatever_is_hit_by_odd_seeds_one_side_has_the_guest_and_it_can_be_moved_again,
        back_and_forth::soak_a_guest_moves_to_and_fro_two_hundred_times,
        cuts::soak_a_move_survives_cuts_of_minutes_and_a_minute_of_flapping,
        other_versions::soak_a_guest_moves_to_and_from_a_host_of_0_1_0_in_both_roles_and_stays_when_that_is_upgraded,
        kinds::soak_kinds_of_guests_move_between_newer_qemus,
        paused::with_the_way_back_cut_after_releasing_the_guest_is_at_the_destination_alone_and_the_source_asks,
        paused::cut_off_while_it_is_paused_a_guest_runs_again_after_its_deadline_and_moves_when_the_link_is_back,
        in_doubt::by_an_operators_word_a_guest_in_doubt_goes_on_and_the_other_host_stops_it_when_it_is_back,
        in_doubt::a_host_that_was_given_up_and_comes_back_serves_no_disk_of_a_guest_that_was_taken_back,
        reserved::room_is_free_again_when_a_daemon_that_reserved_it_dies_or_is_not_heard_any_more,
        bandwidth::memory_gets_more_of_the_link_than_the_bulk_of_a_disk,
        bandwidth::a_move_follows_the_bandwidth_that_it_is_set_until_it_has_ended,
        cancelled::a_move_is_cancelled_in_each_phase_and_the_guest_runs_on_until_one_is_not,
        cancelled::a_move_is_cancelled_while_memory_goes_and_the_guest_runs_on_until_one_is_not,
        cancelled::a_move_is_cancelled_while_the_destination_reserves_and_what_it_starts_ends_again,
        clocks::wall_clocks_that_are_set_forward_and_back_are_nothing_to_a_move,
        home::hosts_that_lost_power_lead_to_a_guest_that_has_moved_as_they_did_before,
        looked::a_dry_run_touches_nothing_at_either_host_also_while_an_earlier_attempt_is_there,
        operator::a_device_that_is_plugged_in_during_the_copy_is_named_before_memory_goes_and_one_that_is_out_again_harms_not,
        ways::of_two_data_addresses_the_faster_one_is_picked_and_named_in_the_report,
    ])
}
