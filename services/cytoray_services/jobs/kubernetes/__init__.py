"""Jobs on Kubernetes: a RayJob of KubeRay, and a ConfigMap with the recipe."""
