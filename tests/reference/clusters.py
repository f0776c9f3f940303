"""Makes tests/fixtures/clusters.json: cluster scores and principal components by scikit-learn.

    python tests/reference/clusters.py     # made with scikit-learn 1.9.1, numpy 2.x
"""
import json
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_samples, silhouette_score
from sklearn.neighbors import NearestNeighbors

generator = np.random.default_rng(5)
K = 5
# Three clouds that overlap, of unequal size and spread, and one point that is alone with its label.
sizes, spreads = [14, 9, 6], [1.0, 0.6, 1.6]
centres = generator.normal(size=(3, 4)) * 1.5
points = np.vstack([c + s * generator.normal(size=(n, 4)) for c, n, s in zip(centres, sizes, spreads)] + [np.full((1, 4), 0.5)])
points = np.round(points, 4)
labels = np.array(["a"] * 14 + ["b"] * 9 + ["c"] * 6 + ["d"])
neighbours = NearestNeighbors(n_neighbors=K + 1).fit(points).kneighbors(points)[1][:, 1:]
pca = PCA(n_components=2, svd_solver="full").fit(points)
out = Path(__file__).parent.parent / "fixtures" / "clusters.json"
out.write_text(json.dumps({
    "points": points.tolist(),
    "labels": labels.tolist(),
    "silhouettes": silhouette_samples(points, labels).tolist(),
    "silhouette": float(silhouette_score(points, labels)),
    "k": K,
    "neighbours": neighbours.tolist(),
    "purities": (labels[neighbours] == labels[:, None]).mean(1).tolist(),
    "components": pca.transform(points).tolist(),
    "explained": pca.explained_variance_ratio_.tolist(),
}) + "\n")
