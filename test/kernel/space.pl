# Space: what df says, a file system that fills up, and is free again. $SMALL is a mount with little room.
BEGIN { require "$ENV{KERNEL}/lib.pl" }
our ($nfs, $other, $dir);

# free MOUNT: (kilobytes in all, kilobytes free, inodes in all, inodes free)
sub free {
	drop();
	my @k = split ' ', (split /\n/, `df -Pk $_[0]`)[1];
	my @i = split ' ', (split /\n/, `df -Pi $_[0]`)[1];
	return @k[1, 3], @i[1, 3];
}

check 'df' => sub {
	my ($all, $free, $inodes, $inodes_free) = free($nfs);
	$all > 0 && $free > 0 && $free <= $all or die "df says $free of $all kB\n";
	$inodes > 0 && $inodes_free > 0 && $inodes_free <= $inodes or die "df says $inodes_free of $inodes inodes\n";
	put("$dir/f", 'x' x (8 << 20));
	my (undef, $less) = free($nfs);
	my $took = $free - $less;
	note("8192 kB written took $took kB");
	$took >= 8000 && $took <= 10_000 or die "8192 kB written took $took kB\n" unless $ENV{SHARED_SPACE};
	unlink "$dir/f" or fail('unlink');
	my (undef, $again) = free($nfs);
	$free - $again < 1024 or die "after removal " . ($free - $again) . " kB are still taken\n" unless $ENV{SHARED_SPACE};
};

my $full = 0;

# fill HANDLE: write until there is no room; returns the bytes that went in. The error may come late, with fsync.
sub fill {
	my ($h) = @_;
	my ($bytes, $block) = (0, 'f' x 65_536);
	while ($bytes < 4 << 30) {
		my $n = syswrite $h, $block;
		if (!defined $n || !$h->sync) { return $bytes if $! == ENOSPC || $! == EDQUOT; fail('fill') }
		$bytes += $n;
	}
	die "4 GiB went into the small export\n";
}

if (!$ENV{SMALL}) { not_run('a full file system', 'no small export was given') }
else {
	$nfs = $ENV{SMALL};
	check 'a full file system' => sub {
		my ($all, $free) = free($nfs);
		put("$dir/before", 'x' x 5000);
		open my $h, '>', "$dir/big" or fail('create');
		my $bytes = fill($h);
		close $h;
		note("$free kB were free of $all, " . ($bytes >> 10) . ' kB went in');
		$bytes >> 10 > $free / 2 or die "full after " . ($bytes >> 10) . " kB of $free kB that were free\n";
		my (undef, $left) = free($nfs);
		$left <= 1024 or die "full, and df says $left kB are free\n";    # the kernel counts in units of wsize, upwards

		# Full means refused, not broken: what is there can be read, listed, renamed and removed.
		drop();
		same('what was there', get("$dir/before"), 'x' x 5000);
		works('rename', rename "$dir/before", "$dir/renamed");
		same('names', names($dir), 'big renamed');

		# Nothing is half done: a refused write leaves size and content as they were.
		open my $more, '+<', "$dir/big" or fail('open');
		sysseek $more, 0, SEEK_END;
		my $size = size("$dir/big");
		my $refused = !defined syswrite($more, 'y' x 1_048_576) || !$more->sync;
		$refused && ($! == ENOSPC || $! == EDQUOT) or die "1 MiB went into a full file system: $!\n";
		close $more;
		drop();
		open $more, '<', "$dir/big" or fail('open');
		sysseek $more, $size - 10, SEEK_SET;
		sysread $more, my $end, 10;
		same('the end of the large file', $end, 'f' x 10);
		close $more;

		# Free again, and all of it.
		unlink "$dir/big" or fail('unlink');
		my (undef, $again) = free($nfs);
		$again >= $free - 512 or die "$free kB were free, $again kB are\n";
		open $h, '>', "$dir/again" or fail('create');
		my $second = fill($h);
		close $h;
		$second >= $bytes - (1 << 20) or die "only $second bytes went in the second time, $bytes the first\n";
		unlink "$dir/again" or fail('unlink');
		mkdir "$dir/d" or fail('mkdir when free again');
	};
	check 'as many files as fit' => sub {
		my ($made, $why) = (0, '');
		for my $i (1 .. 200_000) {
			if (syscall(133, "$dir/f$i", S_IFREG | 0644, 0) != 0) { $why = $! + 0; last }
			$made++;
			last if $made >= ($ENV{SMALL_FILES} // 3000);
		}
		!$why || $why == ENOSPC || $why == EDQUOT or die "create: errno $why\n";
		note("$made files made" . ($why ? ' until it was full' : ''));
		drop();
		same('names listed', scalar(split ' ', names($dir)), $made);
	};
}
