"""Jobs on Ray clusters, and Ray instances of this machine."""
