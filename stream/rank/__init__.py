"""The role that serves: events in, features, candidates, slates and examples out.

decode -> visitors (state) -> features, feedback (kernels) -> candidates -> score -> slate
"""
