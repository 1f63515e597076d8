"""Ways to cut the network between nodes: `proxy` without privileges, `netns` on Linux as root."""
