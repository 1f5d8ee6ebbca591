# Exclusive creation from two mounts at once: of all who try, exactly one must win.
BEGIN { require "$ENV{KERNEL}/lib.pl" }
our ($nfs, $other, $dir);

my $rounds = $ENV{ROUNDS} // 200;

# race WHAT, TRY: in every round two processes, one on each mount, call TRY->(path, round) for the same name at the same moment.
# TRY returns true for the winner, and its loser must have met EEXIST.
sub race {
	my ($what, $try) = @_;
	my $there = $other . substr $dir, length $nfs;
	my @racers;
	for my $place ($dir, $there) {
		pipe my $go_r, my $go_w or fail('pipe');
		pipe my $said_r, my $said_w or fail('pipe');
		my $pid = fork // fail('fork');
		if (!$pid) {
			$said_w->autoflush(1);
			close $go_w;
			while (defined(my $round = <$go_r>)) {
				chomp $round;
				$! = 0;
				my $won = $try->("$place/$round", "$place by $$ in $round");
				print $said_w $won ? "won\n" : $! == EEXIST ? "lost\n" : "error $!\n";
			}
			POSIX::_exit(0);
		}
		close $go_r;
		close $said_w;
		$go_w->autoflush(1);
		push @racers, { go => $go_w, said => $said_r, pid => $pid, wins => 0 };
	}
	for my $round (1 .. $rounds) {
		print { $_->{go} } "$round\n" for $round % 2 ? @racers : reverse @racers;
		my @said = map { my $s = readline $_->{said}; chomp $s; $_->{wins}++ if $s eq 'won'; $s } @racers;
		same("$what, round $round", join(' ', sort @said), 'lost won');
	}
	close $_->{go} for @racers;
	waitpid $_->{pid}, 0 for @racers;
	note("$what: $rounds rounds, won by " . join(' and ', map { $_->{wins} } @racers));
	same("$what: entries", scalar(split ' ', names($dir)), $rounds);
}

check 'exclusive creation of files from two mounts' => sub {
	race('O_EXCL', sub {
		my ($path, $text) = @_;
		sysopen my $h, $path, O_CREAT | O_EXCL | O_WRONLY, 0644 or return 0;
		syswrite $h, $text;
		return close $h;
	});
	my $there = $other . substr $dir, length $nfs;
	for my $round (1 .. $rounds) {
		my $text = get("$dir/$round");
		$text =~ /^\S+ by \d+ in $round$/ or die "round $round holds '$text'\n";
		same("content seen from the other mount, round $round", get("$there/$round"), $text);
	}
};

check 'mkdir from two mounts' => sub {
	race('mkdir', sub { mkdir $_[0] });
};

check 'symbolic links from two mounts' => sub {
	race('symlink', sub { symlink $_[1], $_[0] });
};

check 'hard links from two mounts' => sub {
	put("$nfs/linked", 'x');
	race('link', sub { my ($path) = @_; (my $root = $path) =~ s,/[^/]+/[^/]+$,,; link "$root/linked", $path });
	same('links', links("$nfs/linked"), $rounds + 1);
	unlink "$nfs/linked";
};

check 'a counter in a file behind a lock file' => sub {
	my $each = 20;
	my $there = $other . substr $dir, length $nfs;
	put("$dir/count", 0);
	my $join = children(2, sub {
		my $place = $_[0] ? $there : $dir;
		for my $i (1 .. $each) {
			until (sysopen my $lock, "$place/lock", O_CREAT | O_EXCL) { $! == EEXIST or fail('lock') }
			my $n = get("$place/count");
			put("$place/count", $n + 1);
			unlink "$place/lock" or fail('unlock');
		}
	});
	$join->();
	drop();
	same('count', get("$dir/count"), 2 * $each);
};
