# Data: overwrites, holes, truncation, appending, mapped files, times.
BEGIN { require "$ENV{KERNEL}/lib.pl" }
our ($nfs, $other, $dir);

my $megabyte = 1 << 20;
my $big = ($ENV{BIG_MB} // 100) * $megabyte;

sub sum { my ($path) = @_; my $out = `sha256sum <$path`; $? == 0 or die "sha256sum $path failed\n"; return $out }

# noise N: N bytes that do not repeat soon, the same for the same seed.
my $seed = 12345;
sub chance { $seed = ($seed * 1103515245 + 12345) & 0x7fffffff; return ($seed >> 8) % $_[0] }
sub noise { my ($n) = @_; my $word = pack 'N*', map { chance(1 << 23) } 1 .. 256; return substr $word x ($n / length($word) + 1), 0, $n }

check 'a large file with random overwrites' => sub {
	my $local = "$ENV{TMPDIR}/copy";
	my @files = map { sysopen my $h, $_, O_CREAT | O_RDWR or fail("create $_"); $h } "$dir/f", $local;
	my $write = sub {
		my ($at, $bytes) = @_;
		for my $h (@files) {
			sysseek $h, $at, SEEK_SET or fail('seek');
			my $n = syswrite $h, $bytes;
			defined $n && $n == length $bytes or fail("write at $at");
		}
	};
	for (my $at = 0; $at < $big; $at += $megabyte) { $write->($at, noise($megabyte)) }
	for my $i (1 .. 400) { $write->(chance($big - 70_000), noise(1 + chance($i % 10 ? 9_000 : 65_536))) }
	close $_ or fail('close') for @files;
	drop();
	same('size', size("$dir/f"), $big);
	same('checksum after the caches are dropped', sum("$dir/f"), sum($local));
	my $there = $other . substr $dir, length $nfs;
	same('checksum through the other mount', sum("$there/f"), sum($local));
	unlink $local;
};

check 'overwrites of a file that is read in between' => sub {
	put("$dir/f", noise(300_000));
	my $want = get("$dir/f");
	sysopen my $h, "$dir/f", O_RDWR or fail('open');
	for my $i (1 .. 100) {
		my ($at, $bytes) = (chance(290_000), noise(1 + chance(9_000)));
		sysseek $h, $at, SEEK_SET;
		syswrite($h, $bytes) == length $bytes or fail('write');
		substr $want, $at, length $bytes, $bytes;
		next if $i % 20;
		drop();
		get("$dir/f") eq $want or die "content differs after overwrite $i\n";
	}
	close $h or fail('close');
};

check 'a sparse file of 8 GiB' => sub {
	my $size = 8 << 30;
	my ($before) = free_kilobytes();
	sysopen my $h, "$dir/f", O_CREAT | O_RDWR or fail('create');
	truncate $h, $size or fail('truncate');
	my @at = (0, 4095, 123_456_789, 4 << 30, $size - 5);
	for my $at (@at) { sysseek $h, $at, SEEK_SET or fail('seek'); syswrite($h, 'data') == 4 or fail("write at $at") }
	close $h or fail('close');
	drop();
	same('size', size("$dir/f"), $size);
	my $kept = (stat "$dir/f")[12] * 512;
	$kept < $megabyte or die "the file takes $kept bytes\n";
	sysopen $h, "$dir/f", O_RDONLY or fail('open');
	my $read = sub { sysseek $h, $_[0], SEEK_SET; defined sysread $h, my $b, $_[1] or fail("read at $_[0]"); return $b };
	same("at $_", $read->($_, 4), 'data') for @at;
	for my $at (5000, 100_000_000, 123_450_000, (4 << 30) - 4096, (6 << 30)) {
		my $b = $read->($at, 4096);
		$b eq "\0" x 4096 or die "the hole at $at is not zeros\n";
	}
	same('read across the end', $read->($size - 5, 100), "data\0");
	close $h;
	unlink "$dir/f" or fail('unlink');
	my ($after) = free_kilobytes();
	$before - $after < 4096 or die "removing it left $before - $after kB taken\n";
};

sub free_kilobytes { my @f = split ' ', (split /\n/, `df -Pk $nfs`)[1]; return $f[3] }

check 'a file ends where it can end' => sub {
	sysopen my $h, "$dir/f", O_CREAT | O_RDWR or fail('create');
	my $top = (1 << 43) - 1;
	if (truncate $h, $top) {
		close $h;
		drop();
		same('size', size("$dir/f"), $top);
	}
	else { $! == EFBIG or $! == EINVAL or fail('truncate to 2^43-1') }
};

check 'truncation' => sub {
	put("$dir/f", 'x' x 10_000);
	truncate "$dir/f", 5_000 or fail('shorten');
	truncate "$dir/f", 9_000 or fail('lengthen');
	drop();
	same('size', size("$dir/f"), 9_000);
	get("$dir/f") eq 'x' x 5_000 . "\0" x 4_000 or die "what was cut off came back\n";
	put("$dir/f", 'short');
	drop();
	same('O_TRUNC', get("$dir/f"), 'short');
	truncate "$dir/f", 0 or fail('empty');
	drop();
	same('blocks of an empty file', (stat "$dir/f")[12], 0);
};

check 'appending' => sub {
	for my $i (1 .. 50) { open my $h, '>>', "$dir/f" or fail('open'); print $h "line $i\n"; close $h or fail('close') }
	drop();
	same('content', get("$dir/f"), join '', map { "line $_\n" } 1 .. 50);
};

check 'odd sizes and offsets' => sub {
	for my $n (0, 1, 511, 4095, 4096, 4097, 8193, 65_535, 1_048_577) { put("$dir/$n", noise($n)) }
	$seed = 99;
	for my $n (1, 4095, 4096, 4097, 65_535) {
		my $bytes = noise($n);
		sysopen my $h, "$dir/at$n", O_CREAT | O_WRONLY or fail('create');
		sysseek $h, $n, SEEK_SET;
		syswrite($h, $bytes) == $n or fail('write');
		close $h or fail('close');
		drop();
		get("$dir/at$n") eq "\0" x $n . $bytes or die "content of $n bytes at $n differs\n";
	}
	same("size $_", size("$dir/$_"), $_) for 0, 1, 511, 4095, 4096, 4097, 8193, 65_535, 1_048_577;
};

# Seconds have ten digits for long enough, so times compare as text.
check 'times' => sub {
	put("$dir/f", 'x');
	my $ns = sub { my $out = `stat -c '%.9X %.9Y %.9Z' $dir/f`; chomp $out; return split ' ', $out };
	my (undef, $mtime, $ctime) = $ns->();
	system('touch', '-d', '2021-02-03T04:05:06.123456789Z', "$dir/f") == 0 or fail('touch');
	drop();
	my ($a, $m, $c) = $ns->();
	same('atime set', $a, '1612325106.123456789');
	same('mtime set', $m, '1612325106.123456789');
	$c ge $ctime or die "ctime went back from $ctime to $c\n";
	chmod 0600, "$dir/f";
	drop();
	($a, $m, my $c2) = $ns->();
	$c2 gt $c or die "chmod left ctime at $c\n";
	same('mtime after chmod', $m, '1612325106.123456789');
	open my $h, '>>', "$dir/f";
	print $h 'y';
	close $h;
	drop();
	(undef, my $m2) = $ns->();
	$m2 gt $m or die "a write left mtime at $m\n";
	(undef, my $d1) = map { (stat $dir)[9] } 1, 2;
	put("$dir/g", '');
	drop();
	(stat $dir)[9] >= $d1 or die "the directory's mtime went back\n";
};

check 'mapped files' => sub {
	my $program = "$ENV{TMPDIR}/mapped";
	system('tcc', '-o', $program, "$ENV{KERNEL}/mapped.c") == 0 or fail('tcc');
	system($program, "$dir/f") == 0 or die "mapped ended with " . ($? >> 8) . "\n";
	drop();
	system($program, '--verify', "$dir/f") == 0 or die "mapped --verify ended with " . ($? >> 8) . "\n";
};
