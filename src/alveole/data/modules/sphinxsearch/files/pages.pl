# One line of CSV for each page below the folder $ARGV[0]: a number, its title, its path, its text.
use strict;
use warnings;
my ($top, $id) = ($ARGV[0], 0);
my %entity = (amp => '&', lt => '<', gt => '>', quot => '"', apos => "'", nbsp => ' ');
sub cell { my $text = shift; $text =~ s/\s+/ /g; $text =~ s/"/""/g; return qq("$text"); }
sub walk {
    my $folder = shift;
    opendir(my $handle, $folder) or return;
    for my $name (sort readdir $handle) {
        next if $name =~ /^\./ or $name eq 'node_modules' or $name eq 'vendor';
        my $path = "$folder/$name";
        next if -l $path;
        if (-d $path) { walk($path); next }
        next unless $name =~ /\.(?:html?|md|txt)$/i and -s $path < 4_000_000;
        open(my $file, '<', $path) or next;
        local $/;
        my $text = <$file>;
        my $title = $name;
        if ($name =~ /\.html?$/i) {
            $title = $1 if $text =~ m{<title[^>]*>(.*?)</title>}is;
            $text =~ s{<(script|style|title)\b.*?</\1\s*>}{ }gis;
            $text =~ s{<!--.*?-->}{ }gs;
            $text =~ s{<[^>]*>}{ }g;
            for ($title, $text) { s/&(\w+);/$entity{$1} \/\/ " "/ge; s/&#(\d+);/$1 < 128 ? chr $1 : ' '/ge }
        } elsif ($text =~ /^#\s+(.+)/m) {
            $title = $1;
        }
        print join(',', ++$id, cell($title), cell(substr $path, length $top), cell($text)), "\n";
    }
}
walk($top);
