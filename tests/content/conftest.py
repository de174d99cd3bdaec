from contentkit import place

__all__ = ["place"]
