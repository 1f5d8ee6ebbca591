# A large directory, listed while entries come and go: whatever stays is listed exactly once.
BEGIN { require "$ENV{KERNEL}/lib.pl" }
our ($nfs, $other, $dir);

my $entries = $ENV{ENTRIES} // 20_000;
my $passes = $ENV{PASSES} // 4;

check 'a large directory listed while entries come and go' => sub {
	my $there = $other . substr $dir, length $nfs;
	mkdir "$dir/d" or fail('mkdir');
	put("$dir/one", 'x');
	my $made = time;
	for my $i (1 .. $entries) {
		$i % 4 ? syscall(133, "$dir/d/stay$i", S_IFREG | 0644, 0) == 0 : link("$dir/one", "$dir/d/stay$i") or fail("create entry $i");
	}
	note("$entries entries made in " . (time - $made) . ' s');

	# The churn: on the other mount, entries that come, change their names and go, until the pipe closes.
	pipe my $stop_r, my $stop_w or fail('pipe');
	my $join = children(1, sub {
		close $stop_w;
		$stop_r->blocking(0);
		my $n = 0;
		while (1) {
			my $got = sysread $stop_r, my $b, 1;
			last if defined $got && $got == 0;
			$n++;
			syscall(133, "$there/d/go$n", S_IFREG | 0644, 0) == 0 or fail("create go$n");
			if ($n > 20) { my $old = $n - 20; rename "$there/d/go$old", "$there/d/moved$old" or fail("rename go$old") }
			if ($n > 40) { my $old = $n - 40; unlink "$there/d/moved$old" or fail("unlink moved$old") }
		}
	});
	close $stop_r;
	my $why = '';
	for my $pass (1 .. $passes) {
		drop() if $pass % 2;
		my $started = time;
		my (%times, $come);
		opendir my $d, "$dir/d" or fail('opendir');
		while (defined(my $name = readdir $d)) { $times{$name}++ }
		closedir $d;
		my $missing = grep { !$times{"stay$_"} } 1 .. $entries;
		my @twice = grep { $times{$_} > 1 } sort keys %times;
		my $others = grep { !/^stay/ } keys %times;
		note("pass $pass: " . keys(%times) . " names, $others of them coming and going, " . (time - $started) . ' s');
		$why ||= "pass $pass: $missing entries that stay are missing" if $missing;
		$why ||= "pass $pass: listed twice: @twice[0 .. ($#twice > 4 ? 4 : $#twice)]" if @twice;
		$why ||= "pass $pass: no . or .." unless $times{'.'} && $times{'..'};
	}
	close $stop_w;
	$join->();
	die "$why\n" if $why;
	same('links of the linked file', links("$dir/one"), 1 + int($entries / 4));
	for my $i (1, 2, int($entries / 2), $entries) { -e "$dir/d/stay$i" or fail("stay$i") }

	# Removing while listing, as rm -r does, must leave nothing.
	my $removed = time;
	system('rm', '-r', "$dir/d") == 0 or fail('rm -r');
	note("removed in " . (time - $removed) . ' s');
	same('names left', names($dir), 'one');
};

check 'positions in a directory stay good' => sub {
	put("$dir/f$_", '') for 1 .. 300;
	opendir my $d, $dir or fail('opendir');
	my (@before, $where);
	for (1 .. 100) { push @before, scalar readdir $d }
	$where = telldir $d;
	my @after = readdir $d;
	for my $name (@before[10 .. 60]) { next if $name =~ /^\.\.?$/; unlink "$dir/$name" or fail("unlink $name") }
	put("$dir/new$_", '') for 1 .. 50;
	drop();
	seekdir $d, $where;
	my %again = map { $_ => 1 } readdir $d;
	my @lost = grep { !$again{$_} } @after;
	die "after going back: @lost are missing\n" if @lost;
};

sub move { rename "$dir/d/$_[0]", "$dir/d/$_[1]" or fail("rename $_[0] to $_[1]") }

# A program that renames the entries it lists must come to the end: a rename keeps an entry's place. The directory is larger than the
# kernel reads at once.
for my $way (
	['a new file over each name', sub { put("$dir/d/tmp", 'new'); move('tmp', $_[0]) }],
	['there and back', sub { move($_[0], 'aside'); move('aside', $_[0]) }],
	['to another name', sub { move($_[0], "$_[0].x") }],
) {
	my ($name, $rename) = @$way;
	check "a listing ends under renames - $name" => sub {
		my $count = $ENV{RENAMED} // 2500;
		mkdir "$dir/d" or fail('mkdir');
		for my $i (1 .. $count) { syscall(133, "$dir/d/f$i", S_IFREG | 0644, 0) == 0 or fail("create f$i") }
		drop();
		my ($listed, %times) = (0);
		opendir my $d, "$dir/d" or fail('opendir');
		while (defined(my $n = readdir $d)) {
			next unless $n =~ /^(f\d+)/;
			$times{$1}++;
			last if ++$listed > 2 * $count;
			$rename->($n);
		}
		closedir $d;
		same('entries listed', $listed, $count);
		same('different entries listed', scalar(keys %times), $count);
	};
}
