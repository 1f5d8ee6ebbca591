# Workers that keep a mount busy while ask has faults made. The kernel must have nothing to complain of, and what the workers
# leave must be what undisturbed ones leave.
use strict;
use warnings;
our ($nfs, $other, $dir);

my $workers = 4;

# busy PLACE, CODE: keep processes working on files in PLACE, of the kind whose repetition would show (a second mkdir,
# remove or rename of the same name fails), while CODE has faults made; then all must be as if nothing had been.
sub busy {
	my ($place, $faults) = @_;
	kernel_said('.');
	pipe my $stop_r, my $stop_w or fail('pipe');
	pipe my $count_r, my $count_w or fail('pipe');
	my $join = children($workers, sub {
		my ($me) = @_;
		close $stop_w;
		$stop_r->blocking(0);
		my $home = "$place/w$me";
		mkdir $home or fail('mkdir');
		my $n = 0;
		until (stopped($stop_r)) { turn($home, ++$n); syswrite $count_w, "$me $n\n" }
	});
	close $stop_r;
	close $count_w;
	my $turns = 0;
	# progress N: wait until the workers have together made N more turns.
	my $progress = sub { for (1 .. $_[0]) { defined readline $count_r or last; $turns++ } };
	my $done = eval { $faults->($progress); 1 };
	my $why = $@;
	close $stop_w;
	$turns++ while defined readline $count_r;
	$join->();
	die $why unless $done;
	note("$turns turns of work");
	my @complaints = kernel_said('nfs: server|NFS: |lost|I/O error');
	die "the kernel said: @complaints\n" if @complaints;
	drop();
	verify("$place/w$_") for 0 .. $workers - 1;
}

sub stopped { my ($pipe) = @_; my $got = sysread $pipe, my $b, 1; return defined $got && $got == 0 }

# turn: one piece of work; everything it makes but a log line and every tenth file it removes again.
sub turn {
	my ($home, $n) = @_;
	my $text = "turn $n " . 'x' x ($n % 50 * 100);
	mkdir "$home/d" or fail("mkdir in turn $n");
	sysopen my $h, "$home/d/f", O_CREAT | O_EXCL | O_WRONLY, 0644 or fail("exclusive create in turn $n");
	syswrite($h, $text) == length $text or fail("write in turn $n");
	close $h or fail("close in turn $n");
	link "$home/d/f", "$home/l" or fail("link in turn $n");
	rename "$home/d/f", "$home/f$n" or fail("rename in turn $n");
	symlink "f$n", "$home/s" or fail("symlink in turn $n");
	get("$home/s") eq $text or die "turn $n reads back other bytes\n";
	unlink "$home/$_" or fail("unlink $_ in turn $n") for 's', 'l';
	rmdir "$home/d" or fail("rmdir in turn $n");
	unlink "$home/f$n" or fail("unlink in turn $n") if $n % 10;
	open my $log, '>>', "$home/log" or fail('open log');
	print $log "$n\n";
	close $log or fail("close log in turn $n");
}

# verify HOME: what a worker left is what an undisturbed one would have left.
sub verify {
	my ($home) = @_;
	my @log = split /\n/, get("$home/log");
	same('log', join(' ', @log), join(' ', 1 .. @log));
	my %want = (log => 1, map { ("f$_" => 1) } grep { $_ % 10 == 0 } 1 .. @log);
	same('names', names($home), join ' ', sort keys %want);
	for my $n (grep { $_ % 10 == 0 } 1 .. @log) {
		same("content of f$n", get("$home/f$n"), "turn $n " . 'x' x ($n % 50 * 100));
		same("links of f$n", links("$home/f$n"), 1);
	}
}

1;
