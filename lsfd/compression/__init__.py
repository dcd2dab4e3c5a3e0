"""Making a smaller network out of a large one, under a budget (block-wise, BlockWise-style).

After Ahmed et al. (arXiv 2104.09191, ICPR 2020). Of that paper the abstract alone was at hand: it
combines knowledge distillation with an optimisation block by block, under a constraint of
multiply-adds or parameters, for MobileNet_v2. All that is said below is a reconstruction for
super-resolution, not that paper's procedure.

A teacher T, an EDSR, is split into G groups of residual blocks and the tail (upsampler and last
convolution). With x: N x 3 x h x w, F^0 its shallow features and F^g: N x C x h x w what group g
gives:

1. For each group there are candidates B: (blocks kept, inner width), the group as it is among them;
   for the tail: widths. A candidate starts from the teacher's filters with the largest norms, keeps
   C channels at both ends, and learns from what the teacher gives it, apart from all others:

       min_B  mean |B(F^(g-1)) - F^g|            (tail: the teacher's image)

2. Its error is e = mean |T_B(x) - T(x)| over held-out patches, T_B being the teacher with this
   candidate in place of the part: a difference of images, so that errors of different parts can be
   added. It is 0 for the part as it is.
3. One candidate for each part is chosen: the least sum of errors with a sum of costs within the
   budget, exactly (a multiple-choice knapsack, by dynamic programming).
4. The choice is assembled to one network (:class:`lsfd.networks.slim_edsr.SlimEDSR`) and fine-tuned
   as any student is.
"""
