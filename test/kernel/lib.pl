# Functions for the checks that are written in perl, so that a thousand file operations cost one process.
# Use: BEGIN { require "$ENV{KERNEL}/lib.pl" }   Checks print what guest/doc.go describes.
use strict;
use warnings;
use Errno qw(:POSIX);
use Fcntl qw(:DEFAULT :mode :seek);
use IO::Handle;
use POSIX ();

STDOUT->autoflush(1);
our $nfs = $ENV{NFS} // die "no \$NFS\n";    # the export, through the first relay
our $other = $ENV{NFS1} // $nfs;             # the same export, through another relay

# check NAME, CODE: run CODE in a directory of its own; it fails by dying.
our $dir;

sub check {
	my ($name, $code) = @_;
	print "begin $name\n";
	(my $place = $name) =~ tr/ /-/;
	$dir = "$nfs/$place";
	my $done = eval {
		mkdir $dir or fail("mkdir $dir");
		$code->();
		1;
	};
	my $why = $@;
	chdir '/';
	$> = 0, $) = '0 0';
	if ($done) { print "ok $name\n"; clean($dir) }
	else { chomp $why; $why =~ tr/\n/;/; print "FAIL $name: $why\n" }
}

sub clean { system('rm', '-rf', '--', @_) == 0 or print "  | could not remove @_\n" }

# not_run NAME, WHY: a check this machine cannot do.
sub not_run { print "begin $_[0]\nskip $_[0]: $_[1]\n" }

sub note { print "  | @_\n" }

# fail WHAT: the last system call's error is the reason.
sub fail { my $e = "$!"; my (undef, $file, $line) = caller; $file =~ s,.*/,,; die "@_: $e ($file:$line)\n" }

# same WHAT, GOT, WANT
sub same {
	my ($what, $got, $want) = @_;
	return if defined $got && $got eq $want;
	my (undef, $file, $line) = caller;
	$file =~ s,.*/,,;
	die "$what: got " . ($got // 'nothing') . ", want $want ($file:$line)\n";
}

# works WHAT, RESULT: a system call that must succeed.
sub works { my ($what, $result) = @_; return if $result; my $e = "$!"; my (undef, $file, $line) = caller; $file =~ s,.*/,,; die "$what: $e ($file:$line)\n" }

# refused WHAT, ERRNO..., CODE: a system call that must fail with one of the errors.
sub refused {
	my $code = pop;
	my ($what, @errors) = @_;
	my (undef, $file, $line) = caller;
	$file =~ s,.*/,,;
	$! = 0;
	my $result = $code->();
	my $got = $! + 0;
	die "$what was allowed ($file:$line)\n" if $result;
	return if grep { $_ == $got } @errors;
	local $! = $got;
	my $e = "$!";
	die "$what: got '$e', want " . join(' or ', map { local $! = $_; "'$!'" } @errors) . " ($file:$line)\n";
}

# as UID, "GID GID...", CODE: run CODE with another user's rights; NFS calls carry the effective ids.
sub as {
	my ($uid, $gids, $code) = @_;
	$gids .= " $gids" unless $gids =~ / /;
	$) = $gids;
	$> = $uid;
	$> == $uid or die "cannot become $uid: $!\n";
	my @result = eval { $code->() };
	my $why = $@;
	$> = 0;
	$) = '0 0';
	die $why if $why;
	return wantarray ? @result : $result[0];
}

# drop: forget what this kernel remembers, so that the next answer comes from the server.
sub drop {
	system('sync');
	open my $h, '>', '/proc/sys/vm/drop_caches' or fail('drop_caches');
	print $h "3\n";
	close $h or fail('drop_caches');
}

sub put {
	my ($path, $text) = @_;
	open my $h, '>:raw', $path or fail("create $path");
	print $h $text or fail("write $path");
	close $h or fail("close $path");
}

sub get {
	my ($path) = @_;
	open my $h, '<:raw', $path or fail("open $path");
	local $/;
	my $text = <$h> // '';
	close $h or fail("read $path");
	return $text;
}

sub mode { my @s = lstat $_[0] or fail("lstat $_[0]"); return sprintf '%04o', S_IMODE($s[2]) }
sub owner { my @s = lstat $_[0] or fail("lstat $_[0]"); return "$s[4]:$s[5]" }
sub links { my @s = lstat $_[0] or fail("lstat $_[0]"); return $s[3] }
sub inode { my @s = lstat $_[0] or fail("lstat $_[0]"); return $s[1] }
sub size { my @s = lstat $_[0] or fail("lstat $_[0]"); return $s[7] }

sub names {
	my ($path) = @_;
	opendir my $d, $path or fail("opendir $path");
	return join ' ', sort grep { !/^\.\.?$/ } readdir $d;
}

# ask WORDS: have the test on the host do something; returns its answer once it is done.
sub ask {
	my $words = join ' ', @_;
	require Socket;
	socket my $s, Socket::PF_INET(), Socket::SOCK_STREAM(), 0 or fail('socket');
	connect $s, Socket::pack_sockaddr_in($ENV{GUEST_ASK}, Socket::inet_aton($ENV{GUEST_HOST})) or fail('connect to the test');
	$s->autoflush(1);
	print $s "$words\n";
	my $answer = <$s> // 'err no answer';
	chomp $answer;
	$answer =~ s/^ok // or die "ask $words: $answer\n";
	return $answer;
}

# kernel_said PATTERN: the lines of the kernel's log that match, since the last call.
my $log_seen = 0;

sub kernel_said {
	my ($pattern) = @_;
	my @lines = split /\n/, `dmesg`;
	my @new = @lines[$log_seen .. $#lines];
	$log_seen = @lines;
	return grep { /$pattern/ } @new;
}

# children N, CODE: run CODE->(i) in N processes at once and wait; dies with what the first that failed said.
sub children {
	my ($n, $code) = @_;
	my @kids;
	for my $i (0 .. $n - 1) {
		pipe my $r, my $w or fail('pipe');
		my $pid = fork // fail('fork');
		if (!$pid) {
			close $r;
			my $done = eval { $code->($i); 1 };
			syswrite $w, $@ unless $done;
			POSIX::_exit($done ? 0 : 1);
		}
		close $w;
		push @kids, [$pid, $r];
	}
	return sub {
		my $why = '';
		for my $k (@kids) {
			local $/;
			my $said = readline($k->[1]) // '';
			waitpid $k->[0], 0;
			$why ||= $said || "a child ended with $?" if $?;
		}
		die $why if $why;
	};
}

1;
