# Four hosts and a client on a fifth: one host is cut off while files are written, and comes back.
BEGIN { require "$ENV{KERNEL}/lib.pl" }
our ($nfs, $other, $dir);

sub write_some { my ($from, $to) = @_; put("$dir/f$_", "file $_\n" x 100) for $from .. $to }
sub read_all { my ($to) = @_; drop(); get("$dir/f$_") eq "file $_\n" x 100 or die "f$_ differs\n" for 1 .. $to }

check 'files on four hosts' => sub {
	write_some(1, 20);
	read_all(20);
	note(ask('agree'));
};

check 'one host is cut off and back' => sub {
	write_some(1, 20);
	note(ask('cut h2'));
	write_some(21, 40);
	read_all(40);
	note(ask('status'));
	note(ask('join h2'));
	write_some(41, 60);
	read_all(60);
	note(ask('agree'));
	my @complaints = kernel_said('nfs: server|I/O error');
	die "the kernel said: @complaints\n" if @complaints;
};
