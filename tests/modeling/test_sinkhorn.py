import torch

from pixelclip.modeling.sinkhorn import sinkhorn


def sinkhorn_as_published(logits, num_iterations):
    """Clusters in rows, masks in columns, with every division written out."""
    q = logits.softmax(dim=1).T
    q = q / q.sum()
    for _ in range(num_iterations):
        q = q / q.sum(dim=1, keepdim=True) / q.shape[0]
        q = q / q.sum(dim=0, keepdim=True)
    return q.T


def test_equals_the_published_form():
    logits = 10 * torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sinkhorn(logits, 3), sinkhorn_as_published(logits, 3))


def test_rows_sum_to_one_and_clusters_become_equal():
    logits = torch.randn(60, 6, generator=torch.Generator().manual_seed(1)) + torch.arange(6.0)
    assignment = sinkhorn(logits, 50)
    torch.testing.assert_close(assignment.sum(dim=1), torch.ones(60))
    torch.testing.assert_close(assignment.sum(dim=0), torch.full((6,), 10.0), rtol=1e-3, atol=1e-3)


def test_balances_what_the_argmax_would_collapse():
    logits = torch.randn(64, 8, generator=torch.Generator().manual_seed(2))
    logits[:, 0] += 5
    assert (logits.argmax(dim=1) == 0).float().mean() > 0.9
    assert (sinkhorn(logits, 3).argmax(dim=1) == 0).float().mean() < 0.5


def test_order_of_masks_and_clusters_does_not_matter():
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(3))
    rows, columns = torch.randperm(20), torch.randperm(5)
    shuffled = sinkhorn(logits[rows][:, columns], 3)
    torch.testing.assert_close(shuffled, sinkhorn(logits, 3)[rows][:, columns])


def test_cluster_out_of_reach_gives_no_nan():
    logits = torch.tensor([[200.0, 0.0, -200.0], [150.0, 10.0, -200.0]])
    assignment = sinkhorn(logits, 3)
    assert torch.isfinite(assignment).all()


def test_without_masks():
    assert sinkhorn(torch.zeros(0, 7), 3).shape == (0, 7)


def test_stays_float32_under_autocast_and_from_half():
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assignment = sinkhorn(logits.bfloat16(), 3)
    torch.testing.assert_close(assignment, sinkhorn(logits.bfloat16().float(), 3))
