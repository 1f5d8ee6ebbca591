# Names: rename, links, symbolic links, device nodes, odd names, files without one.
BEGIN { require "$ENV{KERNEL}/lib.pl" }
our ($nfs, $other, $dir);

check 'rename over a file' => sub {
	put("$dir/a", 'new');
	put("$dir/b", 'old');
	my $ino = inode("$dir/a");
	works('rename', rename "$dir/a", "$dir/b");
	drop();
	same('names', names($dir), 'b');
	same('content', get("$dir/b"), 'new');
	same('inode', inode("$dir/b"), $ino);
	same('links', links("$dir/b"), 1);
};

check 'rename between directories' => sub {
	mkdir "$dir/$_" or fail($_) for qw(from to);
	mkdir "$dir/from/d" or fail('mkdir');
	put("$dir/from/d/f", 'x');
	works('rename', rename "$dir/from/d", "$dir/to/e");
	drop();
	same('names', names($dir) . '|' . names("$dir/from") . '|' . names("$dir/to/e"), 'from to||f');
	same('links of from', links("$dir/from"), 2);
	same('links of to', links("$dir/to"), 3);
	same('.. of what moved', (stat "$dir/to/e/..")[1], inode("$dir/to"));
};

check 'rename over directories' => sub {
	mkdir "$dir/$_" or fail($_) for qw(a empty full full/x);
	put("$dir/file", '');
	refused('rename over a full directory', ENOTEMPTY, EEXIST, sub { rename "$dir/a", "$dir/full" });
	refused('rename of a directory over a file', ENOTDIR, sub { rename "$dir/a", "$dir/file" });
	refused('rename of a file over a directory', EISDIR, sub { rename "$dir/file", "$dir/a" });
	refused('rename into its own subtree', EINVAL, sub { rename "$dir/full", "$dir/full/x/y" });
	works('rename over an empty directory', rename "$dir/a", "$dir/empty");
	same('names', names($dir), 'empty file full');
};

check 'rename changes nothing between two names of one file' => sub {
	put("$dir/a", 'x');
	works('link', link "$dir/a", "$dir/b");
	works('rename', rename "$dir/a", "$dir/b");
	works('rename to itself', rename "$dir/b", "$dir/b");
	drop();
	same('names', names($dir), 'a b');
	same('links', links("$dir/a"), 2);
};

check 'hard links' => sub {
	put("$dir/a", 'one');
	works('link', link "$dir/a", "$dir/b");
	mkdir "$dir/d" or fail('mkdir');
	works('link in another directory', link "$dir/a", "$dir/d/c");
	drop();
	same('links', links("$dir/$_"), 3) for qw(a b d/c);
	same('inode', inode("$dir/b"), inode("$dir/a"));
	put("$dir/d/c", 'two');
	same('content by the other name', get("$dir/a"), 'two');
	refused('link over a name', EEXIST, sub { link "$dir/a", "$dir/b" });
	refused('link to a directory', EPERM, sub { link "$dir/d", "$dir/e" });
	unlink "$dir/a" or fail('unlink');
	unlink "$dir/d/c" or fail('unlink');
	drop();
	same('links left', links("$dir/b"), 1);
	same('content left', get("$dir/b"), 'two');
};

check 'symbolic links' => sub {
	put("$dir/file", 'text');
	my $long = join '/', ('x' x 200) x 5;
	my %to = (short => 'file', dangling => 'nowhere/at all', long => $long, up => '../symbolic-links/file');
	symlink $to{$_}, "$dir/$_" or fail("symlink $_") for sort keys %to;
	drop();
	same("readlink $_", readlink "$dir/$_", $to{$_}) for sort keys %to;
	same('size of a link', size("$dir/short"), 4);
	same('through the link', get("$dir/short") . get("$dir/up"), 'texttext');
	refused('open of a dangling link', ENOENT, sub { open my $h, '<', "$dir/dangling" });
	symlink 'loop', "$dir/loop" or fail('symlink');
	refused('open of a loop', ELOOP, sub { open my $h, '<', "$dir/loop" });
	refused('symlink over a name', EEXIST, sub { symlink 'x', "$dir/file" });
	refused('readlink of a file', EINVAL, sub { readlink "$dir/file" });
	unlink "$dir/short" or fail('unlink');
	same('the target stays', get("$dir/file"), 'text');
};

check 'device nodes' => sub {
	my $mknod = sub { my ($name, $mode, $dev) = @_; syscall(133, "$dir/$name", $mode, $dev) == 0 };    # SYS_mknod
	works('character device', $mknod->('chr', S_IFCHR | 0640, 1 << 8 | 3));
	works('block device', $mknod->('blk', S_IFBLK | 0600, 259 << 8 | 7));
	works('fifo', $mknod->('fifo', S_IFIFO | 0644, 0));
	works('socket', $mknod->('sock', S_IFSOCK | 0755, 0));
	works('plain file', $mknod->('reg', S_IFREG | 0604, 0));
	drop();
	my $show = sub { my @s = lstat "$dir/$_[0]" or fail($_[0]); sprintf '%s %04o %d', (split //, ' pc d b - l s')[S_IFMT($s[2]) >> 12], S_IMODE($s[2]), $s[6] };
	same('character device', $show->('chr'), 'c 0640 ' . (1 << 8 | 3));
	same('block device', $show->('blk'), 'b 0600 ' . (259 << 8 | 7));
	same('fifo', $show->('fifo'), 'p 0644 0');
	same('socket', $show->('sock'), 's 0755 0');
	same('plain file', $show->('reg'), '- 0604 0');
	open my $null, '+<', "$dir/chr" or fail('open the null device');
	syswrite($null, 'gone') == 4 or fail('write to the null device');
	my $join = children(1, sub { open my $w, '>', "$dir/fifo" or fail('open fifo'); print $w "through\n" });
	open my $r, '<', "$dir/fifo" or fail('open fifo');
	my $line = <$r>;
	$join->();
	same('through the fifo', $line, "through\n");
};

check 'long and odd names' => sub {
	my @odd = ('a' x 255, "line\nbreak", "\xff\xfe\x01", '-rf', ' ', '...', 'naïve', "tab\tquote\"'", 'CASE', 'case');
	put("$dir/$odd[$_]", $_) for 0 .. $#odd;
	refused('a name of 256 bytes', ENAMETOOLONG, sub { open my $h, '>', "$dir/" . 'a' x 256 });
	drop();
	same($odd[$_], get("$dir/$odd[$_]"), $_) for 0 .. $#odd;
	opendir my $d, $dir or fail('opendir');
	my @got = sort grep { !/^\.\.?$/ } readdir $d;
	same('listed', join('|', @got), join('|', sort @odd));
};

check 'a deep tree' => sub {
	my $p = $dir;
	for (1 .. 100) { $p .= '/d'; mkdir $p or fail("mkdir at depth $_") }
	put("$p/leaf", 'deep');
	drop();
	same('content', get("$p/leaf"), 'deep');
};

check 'remove what is not empty or not there' => sub {
	mkdir "$dir/d" or fail('mkdir');
	put("$dir/d/f", '');
	refused('rmdir of a full directory', ENOTEMPTY, EEXIST, sub { rmdir "$dir/d" });
	refused('rmdir of a file', ENOTDIR, sub { rmdir "$dir/d/f" });
	refused('unlink of a directory', EISDIR, EPERM, sub { syscall(87, "$dir/d") == 0 });    # SYS_unlink; perl's own stats first
	refused('unlink of nothing', ENOENT, sub { unlink "$dir/none" });
	refused('mkdir over a name', EEXIST, sub { mkdir "$dir/d/f" });
	refused('a file as a directory', ENOTDIR, sub { open my $h, '<', "$dir/d/f/g" });
	unlink "$dir/d/f" or fail('unlink');
	works('rmdir', rmdir "$dir/d");
	same('names', names($dir), '');
};

check 'a file removed while open' => sub {
	mkdir "$dir/d" or fail('mkdir');
	open my $h, '+>', "$dir/d/f" or fail('create');
	syswrite $h, 'before';
	unlink "$dir/d/f" or fail('unlink');
	refused('open of the removed file', ENOENT, sub { open my $x, '<', "$dir/d/f" });
	syswrite($h, ' after') == 6 or fail('write');
	sysseek $h, 0, SEEK_SET;
	sysread $h, my $text, 100;
	same('content', $text, 'before after');
	close $h or fail('close');
	works('rmdir, which waits until the kernel has removed what it kept of the file', rmdir "$dir/d");
};

check 'each mount sees the other' => sub {
	my $there = $other . substr $dir, length $nfs;
	put("$dir/f", 'first');
	same('content', get("$there/f"), 'first');
	put("$there/f", 'second, and longer');
	same('content after close', get("$dir/f"), 'second, and longer');
	rename "$there/f", "$there/g" or fail('rename');
	drop();
	same('names', names($dir), 'g');
	same('inode', inode("$dir/g"), inode("$there/g"));
};
